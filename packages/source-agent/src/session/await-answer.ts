import type { Clock } from "@vmferry/core";
import type { StateKeeper } from "@vmferry/agent";
import type { SourceAction, SourceEvent, SourceOwnership } from "@vmferry/protocol";
import type { PeerLink } from "./peer-link.ts";

/** Between two questions after a lost link. */
const RECONNECT_MS_MIN = 100;
const RECONNECT_MS_MAX = 5000;

export interface AwaitAnswerOptions {
  readonly ownership: StateKeeper<SourceOwnership, SourceEvent, SourceAction>;
  readonly peer: PeerLink;
  readonly clock: Clock;
  readonly stopped: () => boolean;
  readonly onLost: (reason: Error) => void;
}

/**
 * After the hand-over: waits until the dest has said what became of the guest. When the link is
 * lost it is made anew and the question repeated, for as long as it takes; no time-out decides.
 */
export async function awaitAnswer(options: AwaitAnswerOptions): Promise<void> {
  const { ownership, peer, clock } = options;
  const answered = ownership.until("done", "owner");
  let delayMs = RECONNECT_MS_MIN;
  while (!options.stopped()) {
    const outcome = await Promise.race([answered, peer.closed]);
    if (!(outcome instanceof Error)) return;
    options.onLost(outcome);
    await new Promise<void>((resolve) => {
      clock.after(delayMs, resolve);
    });
    delayMs = Math.min(delayMs * 2, RECONNECT_MS_MAX);
    if (await peer.reconnect()) await ownership.apply({ kind: "failed" });
  }
}
