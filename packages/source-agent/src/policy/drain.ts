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
 * What reading the last pages may take of the downtime, even if the budget had more. With more passes
 * it is also better known what the guest needs first.
 */
const LAST_PAGES_MS = 3;
/** A guest that is too fast for that in so long a time gets more of it, by so much with every second. */
const PATIENCE_MS = 1500;
const LAST_PAGES_MS_PER_SECOND = 10;

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
  const lateMs = Math.max(0, input.elapsedMs - PATIENCE_MS);
  const lastMsMax = LAST_PAGES_MS + (LAST_PAGES_MS_PER_SECOND * lateMs) / 1000;
  const leftMs = Math.min(lastMsMax, input.downtimeMsMax - fixedMs);
  return {
    predictedDowntimeMs: fixedMs + input.dirtyBytes / Math.max(1, readBytesPerMs),
    dirtyBytesMax: Math.max(0, Math.floor(leftMs * readBytesPerMs)),
    heldBytesMax: 0,
  };
}
