import { messageOf } from "@vmferry/core";
import { inspectQemuBinary } from "@vmferry/qemu";
import type { ReadinessReason } from "./http/readiness.ts";
import type { PeerTls } from "./tls/peer-tls.ts";

/** An agent without a usable QEMU, or that no other agent accepts, is alive and of no use. */
export async function agentReadiness(
  qemu: string,
  tls: PeerTls | null,
): Promise<readonly ReadinessReason[]> {
  return [...(await qemuReadiness(qemu)), ...(tls?.readiness(new Date()) ?? [])];
}

async function qemuReadiness(qemu: string): Promise<readonly ReadinessReason[]> {
  try {
    await inspectQemuBinary(qemu);
    return [];
  } catch (error) {
    return [{ code: "qemu-not-usable", detail: messageOf(error) }];
  }
}
