import { passes, skips, warns, type Finding } from "@vmferry/agent";
import type { PeerAnswer } from "./peer-answer.ts";

const AHEAD_MS_MAX = 2000;
const HINT =
  "Run an NTP client on both hosts: certificates and the times in events and logs need it.";

/** No decision of a hand-over rests on a clock. */
export function checkClock(answer: PeerAnswer): Finding {
  if (answer.kind !== "answered") return skips("The date of the destination is not known.");
  const { clockAheadMs, roundTripMs } = answer;
  const seconds = (Math.abs(clockAheadMs) / 1000).toFixed(1);
  if (Math.abs(clockAheadMs) <= AHEAD_MS_MAX + roundTripMs) {
    return passes(`The clocks of the hosts are less than ${AHEAD_MS_MAX / 1000} s apart.`);
  }
  const where = clockAheadMs > 0 ? "ahead of" : "behind";
  return warns(`The clock of the destination is ${seconds} s ${where} this one.`, HINT);
}
