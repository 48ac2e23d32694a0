import { passes, skips, warns, type Finding, type WitnessPort } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import type { Probe } from "./probed-guest.ts";

const HINT =
  "Mount one directory on both hosts and name it in VMFERRY_SHARED_DIR of both agents. Without it a " +
  "lost hand-over waits for both agents, or for a person.";

/** A hand-over is as safe without a witness: only a person ends a doubt then. */
export async function checkSharedDirectory(
  { probeId, witness: proof }: Probe,
  witness: Pick<WitnessPort, "sees"> | null,
): Promise<Finding> {
  if (proof === null && witness === null) return skips("Neither agent has a shared directory.");
  if (proof === null) return warns("The source has no shared directory that answers.", HINT);
  if (witness === null) return warns("The destination has no shared directory.", HINT);
  try {
    if (await witness.sees(probeId, proof)) return passes("Both agents see the same directory.");
  } catch (error) {
    return warns(`The destination's shared directory: ${messageOf(error)}`, HINT);
  }
  return warns("The shared directory of the destination is another than the source's.", HINT);
}
