import { messageOf } from "@vmferry/core";
import { inspectQemuBinary } from "@vmferry/qemu";
import type { ReadinessReason } from "./http/readiness.ts";

/** An agent without a usable QEMU is alive and of no use. */
export async function qemuReadiness(qemu: string): Promise<readonly ReadinessReason[]> {
  try {
    await inspectQemuBinary(qemu);
    return [];
  } catch (error) {
    return [{ code: "qemu-not-usable", detail: messageOf(error) }];
  }
}
