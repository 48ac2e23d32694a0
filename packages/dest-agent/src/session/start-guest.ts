/**
 * `cont` to a guest that was taken, for as long as its QEMU lives: nobody else may start it, and only
 * the end of its QEMU says that it is down. `cont` may be repeated: whether it was heard is not known
 * when its answer is lost.
 */
import { sleep, type Clock } from "@vmferry/core";
import type { Logger } from "@vmferry/agent";
import type { GuestHolding } from "./guest-holding.ts";

const AGAIN_MS_MIN = 1000;
const AGAIN_MS_MAX = 30_000;

export interface StartGuestOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Whether a guest that stands still says that this `cont`, from 1 on, has failed for good. */
  readonly isFinal: (attempt: number) => boolean;
  /** It was not seen running yet. */
  readonly onStuck: (reason: string) => void;
}

export type GuestStart =
  | { readonly kind: "running" }
  | { readonly kind: "failed"; readonly reason: string }
  | { readonly kind: "gone"; readonly wasTold: boolean };

export async function startGuest(
  held: Pick<GuestHolding, "exited" | "isAlive" | "start">,
  { clock, logger, isFinal, onStuck }: StartGuestOptions,
): Promise<GuestStart> {
  let delayMs = AGAIN_MS_MIN;
  let attempt = 0;
  const gone = new AbortController();
  void held.exited.then(() => {
    gone.abort();
  });
  while (held.isAlive() && !gone.signal.aborted) {
    const outcome = await held.start();
    if (outcome.kind === "running") return outcome;
    if (outcome.kind !== "not-told") attempt++;
    const { reason } = outcome;
    logger.error({ ...outcome, attempt }, "the guest was not started");
    if (outcome.kind === "stands-still" && isFinal(attempt)) return { kind: "failed", reason };
    onStuck(reason);
    await sleep(clock, delayMs, gone.signal);
    delayMs = Math.min(delayMs * 2, AGAIN_MS_MAX);
  }
  return { kind: "gone", wasTold: attempt > 0 };
}
