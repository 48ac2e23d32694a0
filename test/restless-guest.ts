// A guest that dirties more than a link carries, and its post-copy: most of it is missing at the dest
// when it runs there, and comes as slowly as a test needs it.

import type { MoveOptions, MovingGuest } from "./moving-guest.ts";

const MIB = 1024 * 1024;

export const RESTLESS_GUEST = {
  memoryMib: 160,
  workload: { mem: "64M", rate: "20000", hot: "0:1", bytes: "4096" },
};

/** The first pass takes it some three seconds; the guest rewrites all of its memory meanwhile. */
export const RESTLESS_LINK = { bandwidthBytesPerSecond: 24 * MIB };

/** What follows the first pass has this limit: nothing is seen of the pass, and it need not last. */
export async function migrateByPostcopy(
  guest: MovingGuest,
  bandwidthBytesPerSecond: number,
  options: MoveOptions = {},
): Promise<string> {
  const id = await guest.migrate({ mode: "post-copy", limits: RESTLESS_LINK, ...options });
  await guest.until(id, ({ phase, ram }) => ram.pass > 1 || phase === "post-copy");
  await guest.limitBandwidth(id, bandwidthBytesPerSecond);
  return id;
}
