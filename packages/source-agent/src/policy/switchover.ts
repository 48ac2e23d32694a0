/**
 * When to stun. QEMU itself compares what is dirty with a threshold, at the finest grain there is;
 * this policy says what that threshold may be, so that everything that has to travel while the
 * guest stands still fits the downtime budget:
 *
 *   fixed + round trips + disks to be read again
 *     + (under way + held + left of the disks + dirty that is not held as well) / link rate
 */

/** vCPUs stop, last bitmap, device state saved and loaded, `cont`: what no link makes shorter. */
export const SWITCHOVER_FIXED_MS = 60;
/** STUNNED → PREPARED → TOKEN → TAKEN. */
const ROUND_TRIPS = 2;
/** The part of the budget that held pages may use. */
const HELD_SHARE = 0.5;

export interface SwitchoverInput {
  readonly downtimeMsMax: number;
  /** Null before anything was measured. */
  readonly linkBytesPerSecond: number | null;
  readonly roundTripMs: number;
  /** Frames queued or not yet acknowledged. */
  readonly pendingBytes: number;
  /** 0 to 1: what a byte of guest memory becomes on the wire. */
  readonly wireShare: number;
  readonly heldBytes: number;
  /** What the last round would copy of all disks. */
  readonly diskBytes: number;
  /** Disk content that is read again for the digest, on both sides at once. */
  readonly diskSettleMs: number;
  /** QEMU's remaining dirty bytes, as of its last look. */
  readonly dirtyBytes: number;
  /** 0 to 1: share of the pages that come again which are held already. */
  readonly dirtyHeldShare: number;
}

export interface SwitchoverPlan {
  readonly predictedDowntimeMs: number | null;
  /** QEMU may stun as soon as less than this is dirty. 0 = only when nothing is. */
  readonly dirtyBytesMax: number;
  readonly heldBytesMax: number;
}

export function planSwitchover(input: SwitchoverInput): SwitchoverPlan {
  const rate = input.linkBytesPerSecond;
  if (rate === null) return { predictedDowntimeMs: null, dirtyBytesMax: 0, heldBytesMax: 0 };
  const bytesPerMs = rate / 1000;
  const fixedMs = SWITCHOVER_FIXED_MS + ROUND_TRIPS * input.roundTripMs + input.diskSettleMs;
  const budgetBytes = Math.max(0, input.downtimeMsMax - fixedMs) * bytesPerMs;
  // Held pages go as they are; what is read during the stun is compressed as before it.
  const diskBytes = input.diskBytes * input.wireShare;
  const waitingBytes = input.pendingBytes + input.heldBytes + diskBytes;
  const newShare = Math.max(0.05, (1 - input.dirtyHeldShare) * input.wireShare);
  return {
    predictedDowntimeMs: fixedMs + (waitingBytes + input.dirtyBytes * newShare) / bytesPerMs,
    dirtyBytesMax: Math.max(0, Math.floor((budgetBytes - waitingBytes) / newShare)),
    heldBytesMax: Math.max(0, Math.floor(budgetBytes * HELD_SHARE - diskBytes)),
  };
}
