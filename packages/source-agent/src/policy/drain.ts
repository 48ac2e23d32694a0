/**
 * When to stun a guest whose pages go to a store: QEMU converges at the speed of a local socket then,
 * and only what is on its way already still has to travel while the guest stands still.
 *
 *   fixed + round trips + disks to be read again
 *     + (under way + left of the disks) / link rate + dirty / rate at which QEMU's stream is read
 */
import { SWITCHOVER_FIXED_MS, type SwitchoverInput, type SwitchoverPlan } from "./switchover.ts";

/** STUNNED → PREPARED → TOKEN → TAKEN. */
const ROUND_TRIPS = 2;
/** What reading the last pages may take of the downtime, even if the budget had more. */
const LAST_PAGES_MS_MAX = 10;

export interface DrainInput extends Omit<SwitchoverInput, "heldBytes" | "dirtyHeldShare"> {
  /** Bytes of QEMU's stream that were read in a second when nothing stood in the way. */
  readonly readBytesPerSecond: number;
}

export function planDrain(input: DrainInput): SwitchoverPlan {
  const linkBytesPerMs = (input.linkBytesPerSecond ?? Infinity) / 1000;
  const readBytesPerMs = input.readBytesPerSecond / 1000;
  const diskBytes = input.diskBytes * input.wireShare;
  const fixedMs =
    SWITCHOVER_FIXED_MS +
    ROUND_TRIPS * input.roundTripMs +
    input.diskSettleMs +
    (input.pendingBytes + diskBytes) / linkBytesPerMs;
  const leftMs = Math.min(LAST_PAGES_MS_MAX, input.downtimeMsMax - fixedMs);
  return {
    predictedDowntimeMs: fixedMs + input.dirtyBytes / Math.max(1, readBytesPerMs),
    dirtyBytesMax: Math.max(0, Math.floor(leftMs * readBytesPerMs)),
    heldBytesMax: 0,
  };
}
