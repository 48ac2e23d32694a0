import { fails, passes, type Finding } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import { chooseAccelerator, probeKvmSupport } from "@vmferry/qemu";
import type { Probe } from "./probed-guest.ts";

const HINT = "Let the dest agent's user open /dev/kvm, or start the guest with accel tcg.";

/** A guest keeps the accelerator that it was started with. */
export async function checkAccelerator(
  { accel }: Pick<Probe, "accel">,
  kvmSupport = probeKvmSupport,
): Promise<Finding> {
  try {
    chooseAccelerator(accel, await kvmSupport());
  } catch (error) {
    return fails(messageOf(error), HINT);
  }
  return passes(`The destination has ${accel}.`);
}
