import { constants } from "node:fs";
import { open, readFile } from "node:fs/promises";
import type { Accelerator, RequestedAccelerator } from "./guest-definition.ts";
import { GuestError } from "./guest-error.ts";

/** What this host has to offer for KVM. Both are needed: a container may show a device alone. */
export interface KvmSupport {
  readonly deviceOpens: boolean;
  readonly processorOffers: boolean;
}

/** Throws `kvm-not-available` where KVM was asked for by name and is not to be had. */
export function chooseAccelerator(
  requested: RequestedAccelerator,
  { deviceOpens, processorOffers }: KvmSupport,
): Accelerator {
  if (requested === "tcg") return "tcg";
  if (deviceOpens && processorOffers) return "kvm";
  if (requested === "auto") return "tcg";
  const reason = processorOffers
    ? "/dev/kvm does not open for reading and writing"
    : "the processor offers neither vmx nor svm";
  throw new GuestError(`KVM cannot be used here: ${reason}`, { code: "kvm-not-available", reason });
}

export function processorOffersKvm(cpuinfo: string): boolean {
  return /^flags\s*:(?:.*\s)?(?:vmx|svm)(?:\s|$)/m.test(cpuinfo);
}

export async function probeKvmSupport(
  paths: { readonly device: string; readonly cpuinfo: string } = {
    device: "/dev/kvm",
    cpuinfo: "/proc/cpuinfo",
  },
): Promise<KvmSupport> {
  const [deviceOpens, cpuinfo] = await Promise.all([
    opensReadWrite(paths.device),
    // Unreadable is as good as without virtualisation.
    readFile(paths.cpuinfo, "utf8").catch(() => ""),
  ]);
  return { deviceOpens, processorOffers: processorOffersKvm(cpuinfo) };
}

async function opensReadWrite(path: string): Promise<boolean> {
  try {
    const handle = await open(path, constants.O_RDWR);
    await handle.close();
    return true;
  } catch {
    // Absent, not permitted, or without a driver behind it: each means that KVM is not to be had.
    return false;
  }
}
