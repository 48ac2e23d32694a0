// Requests that keep a migration of the tests' small guests in one phase for long enough to do
// something to it there.

import type { MoveOptions } from "./moving-guest.ts";

const MIB = 1024 * 1024;

/** Some 80 MiB at 4 MiB a second: pre-copy takes 20 seconds and more. */
export const LONG_PRE_COPY: MoveOptions = {
  limits: { bandwidthBytesPerSecond: 4 * MIB, downtimeMsMax: 50 },
};

/** The downtime allowed lets QEMU stun with nearly everything still to be sent: some 10 seconds. */
export const LONG_STUN: MoveOptions = {
  limits: { bandwidthBytesPerSecond: 8 * MIB, downtimeMsMax: 60_000 },
};
