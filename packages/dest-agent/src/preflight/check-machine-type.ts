import { fails, passes, type Finding } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import { refuseMachineType } from "../session/offer-check.ts";
import type { Probe } from "./probed-guest.ts";

const HINT =
  "Install a QEMU at the destination that has it, or start the guest with an older type.";

/** As an offer is judged. */
export async function checkMachineType(probe: Probe, qemu: string): Promise<Finding> {
  try {
    await refuseMachineType(probe, qemu);
  } catch (error) {
    return fails(messageOf(error), HINT);
  }
  return passes(`The destination's QEMU knows ${probe.guest.machine}.`);
}
