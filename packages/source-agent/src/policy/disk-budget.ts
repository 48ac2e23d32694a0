/**
 * What the disks may leave for the stun. Of the bytes that the downtime budget allows, held blocks
 * get a fifth and everything that is left of the disks three tenths; the rest is for memory.
 */
import { SWITCHOVER_FIXED_MS } from "./switchover.ts";

const HELD_SHARE = 0.2;
const REST_SHARE = 0.3;

export interface DiskBudgetInput {
  readonly downtimeMsMax: number;
  /** Null before anything was measured. */
  readonly linkBytesPerSecond: number | null;
  readonly roundTripMs: number;
}

export interface DiskBudget {
  readonly heldBytesMax: number;
  /** The disks are nearly through when no more than this is left of them. */
  readonly restBytesMax: number;
}

export function diskBudget(input: DiskBudgetInput): DiskBudget {
  const bytesPerMs = (input.linkBytesPerSecond ?? 0) / 1000;
  const ms = Math.max(0, input.downtimeMsMax - SWITCHOVER_FIXED_MS - 2 * input.roundTripMs);
  return { heldBytesMax: ms * bytesPerMs * HELD_SHARE, restBytesMax: ms * bytesPerMs * REST_SHARE };
}
