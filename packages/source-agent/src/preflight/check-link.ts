import { fails, passes, warns, type Finding } from "@vmferry/agent";
import { codeOf, messageOf } from "@vmferry/core";
import type { PeerAnswer } from "./peer-answer.ts";

/** STUNNED and PREPARED, TOKEN and TAKEN, and the last data: what the guest stands still for. */
const STUNNED_ROUND_TRIPS = 3;
const SLOW_HINT = "Raise limits.downtimeMsMax, or take a link with a shorter round trip.";

/** Whether anything answers there, and whether the guest may stand still for as long as it takes. */
export function checkLink(answer: PeerAnswer, downtimeMsMax: number): Finding {
  if (answer.kind === "failed") {
    const isThere =
      codeOf(answer.error) !== "peer-unreachable" && codeOf(answer.error) !== "peer-lost";
    if (isThere) return passes("The destination's agent answers.");
    return fails(
      messageOf(answer.error),
      "Start the dest agent there, and see that its VMFERRY_PEER_LISTEN can be reached from here.",
    );
  }
  if (answer.kind === "silent" || answer.roundTripMs === 0) {
    return passes("The destination's agent answers.");
  }
  const { roundTripMs } = answer;
  const text = `A round trip takes ${roundTripMs.toFixed(1)} ms`;
  const stunMs = roundTripMs * STUNNED_ROUND_TRIPS;
  if (stunMs <= downtimeMsMax) return passes(`${text}.`);
  return warns(
    `${text}: the guest would stand still for ${Math.ceil(stunMs)} ms at least, of the ` +
      `${downtimeMsMax} ms that it may.`,
    SLOW_HINT,
  );
}
