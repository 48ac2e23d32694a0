import { assert } from "@vmferry/core";
import type { Extent } from "../block-device.ts";

/**
 * What a device tells of a range, cut to the range, with neighbours of one kind as one extent.
 * The lengths stay exact numbers that fit 32 bits because none exceeds the range's.
 */
export function coalesceExtents(
  extents: readonly Extent[],
  { offset, length }: { readonly offset: number; readonly length: number },
): Extent[] {
  const end = offset + length;
  const coalesced: Extent[] = [];
  let at = offset;
  for (const extent of extents) {
    if (at >= end) break;
    assert(extent.offset === at && extent.length > 0, "a device tells its extents without gaps");
    const kept = Math.min(extent.length, end - at);
    const last = coalesced.at(-1);
    if (last?.kind === extent.kind) {
      coalesced[coalesced.length - 1] = { ...last, length: last.length + kept };
    } else {
      coalesced.push({ offset: at, length: kept, kind: extent.kind });
    }
    at += kept;
  }
  assert(coalesced.length > 0, "a device tells of at least one extent");
  return coalesced;
}
