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
/**
 * What reading the last pages may take of the downtime, even if the budget had more; and by how much
 * that grows with every second: a guest may be too fast for the first of it.
 */
const LAST_PAGES_MS_FIRST = 5;
const LAST_PAGES_MS_PER_SECOND = 5;

export interface DrainInput extends Omit<SwitchoverInput, "heldBytes" | "dirtyHeldShare"> {
  /** Bytes of QEMU's stream that were read in a second when nothing stood in the way. */
  readonly readBytesPerSecond: number;
  /** Since it is drained. */
  readonly elapsedMs: number;
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
  const lastMsMax = LAST_PAGES_MS_FIRST + (LAST_PAGES_MS_PER_SECOND * input.elapsedMs) / 1000;
  const leftMs = Math.min(lastMsMax, input.downtimeMsMax - fixedMs);
  return {
    predictedDowntimeMs: fixedMs + input.dirtyBytes / Math.max(1, readBytesPerMs),
    dirtyBytesMax: Math.max(0, Math.floor(leftMs * readBytesPerMs)),
    heldBytesMax: 0,
  };
}
