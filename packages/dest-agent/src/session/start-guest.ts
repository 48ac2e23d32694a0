/**
 * `cont` to a guest that was taken, for as long as its QEMU lives: nobody else may start it, and only
 * the end of its QEMU says that it is down. `cont` may be repeated: whether it was heard is not known
 * when its answer is lost. So an agent that stops leaves it to its next life, which tells it again.
 */
import { growingDelay, sleep, type Clock } from "@vmferry/core";
import type { Logger } from "@vmferry/agent";
import type { GuestHolding } from "./guest-holding.ts";

const AGAIN = { msMin: 1000, msMax: 30_000 };
/** For a QEMU that was killed to be gone. One that stays has a monitor that we lost, and somebody else may start it. */
const ENDING_MS_MAX = 10_000;

export interface StartGuestOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Whether a guest that stands still says that this `cont`, from 1 on, has failed for good. */
  readonly isFinal: (attempt: number) => boolean;
  /** It was not seen running yet. */
  readonly onStuck: (reason: string) => void;
  /** The agent stops. */
  readonly signal: AbortSignal;
}

export type GuestStart =
  | { readonly kind: "running" }
  | { readonly kind: "failed"; readonly reason: string }
  | { readonly kind: "gone"; readonly wasTold: boolean }
  /** The agent stops, and nobody knows whether it was started. */
  | { readonly kind: "left" };

export async function startGuest(
  held: Pick<GuestHolding, "exited" | "isAlive" | "start">,
  { clock, logger, isFinal, onStuck, signal }: StartGuestOptions,
): Promise<GuestStart> {
  const nextDelayMs = growingDelay(AGAIN);
  let attempt = 0;
  const gone = new AbortController();
  void held.exited.then(() => {
    gone.abort();
  });
  const isGone = (): boolean => gone.signal.aborted || !held.isAlive();
  const woken = AbortSignal.any([gone.signal, signal]);
  const stopped = whenAborted(signal);
  while (!isGone()) {
    if (signal.aborted) return { kind: "left" };
    // A monitor that does not answer is not waited for.
    const outcome = await Promise.race([held.start(), stopped]);
    if (outcome === null) return { kind: "left" };
    if (outcome.kind === "running") return outcome;
    const { reason } = outcome;
    logger.error({ ...outcome, attempt }, "the guest was not started");
    if (outcome.kind === "not-told") {
      await sleep(clock, ENDING_MS_MAX, woken);
      if (isGone()) break;
    }
    attempt++;
    if (outcome.kind === "stands-still" && isFinal(attempt)) return { kind: "failed", reason };
    onStuck(reason);
    await sleep(clock, nextDelayMs(), woken);
  }
  return { kind: "gone", wasTold: attempt > 0 };
}

function whenAborted(signal: AbortSignal): Promise<null> {
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => {
      resolve(null);
    });
  });
}
