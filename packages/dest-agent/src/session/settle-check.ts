import { ProblemError } from "@vmferry/agent";
import type { DestOwnership } from "@vmferry/protocol";

/** Throws `not-in-doubt` where there is nothing for a person to decide. */
export function checkSettlable(
  state: DestOwnership,
  owner: "source" | "dest",
  isHalted: boolean,
): void {
  const { phase } = state;
  const may =
    phase === "prepared" ||
    (phase === "down" && owner === "dest") ||
    (phase === "unclear" && state.stun !== null);
  if (may && !isHalted) return;
  const why =
    phase === "down"
      ? "The guest was taken, and may have run here: it is not the source's any more."
      : `Nothing is in doubt here: the hand-over is ${phase}.`;
  throw new ProblemError(why, { code: "not-in-doubt" });
}
