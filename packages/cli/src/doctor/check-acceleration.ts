import { constants } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { passes, warns, type Finding } from "./finding.ts";

const DEVICE = "/dev/kvm";
const CPUINFO = "/proc/cpuinfo";
const PROCESSOR_HINT =
  "Without KVM guests run under TCG, many times slower. Enable virtualisation in the firmware, or nested virtualisation where this host is a guest.";

export interface AccelerationPaths {
  readonly device: string;
  readonly cpuinfo: string;
}

/** As the agents choose with `accel: "auto"`. The device alone says nothing: a container may fake it. */
export async function checkAcceleration(
  { device, cpuinfo }: AccelerationPaths = { device: DEVICE, cpuinfo: CPUINFO },
): Promise<Finding> {
  const trouble = await openingTrouble(device);
  const flags = /^flags\s*:(.*)$/m.exec(await readFile(cpuinfo, "utf8").catch(() => ""))?.[1] ?? "";
  const offered = flags.split(/\s+/).find((flag) => flag === "vmx" || flag === "svm");
  if (offered === undefined) {
    const what = trouble === null ? `${device} opens, but the` : "the";
    return warns(`TCG: ${what} processor offers neither vmx nor svm`, PROCESSOR_HINT);
  }
  if (trouble === null) return passes(`KVM: ${device} opens, and the processor offers ${offered}`);
  const hint =
    trouble === "ENOENT"
      ? "Load the module kvm_intel or kvm_amd."
      : "Let the agent's user open it, say by making it a member of the group kvm.";
  return warns(`TCG: ${device} does not open (${trouble})`, hint);
}

async function openingTrouble(path: string): Promise<string | null> {
  try {
    await (await open(path, constants.O_RDWR)).close();
    return null;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "unknown error";
  }
}
