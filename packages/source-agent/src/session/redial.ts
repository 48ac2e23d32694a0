/** Dials until it is done; whether for too long is for others to say, by `signal`. */
import { messageOf, type Clock } from "@vmferry/core";
import { mayComeBack, PeerError, type Logger } from "@vmferry/agent";
import { redialDelayMs } from "../policy/redial-delay.ts";
import { SessionError } from "./session-error.ts";

/** A lost packet of the handshake is sent again after one and after three seconds. */
const ATTEMPT_MS_MAX = 3000;

export interface RedialOptions {
  readonly clock: Clock;
  /** 0 to 1, without it. */
  readonly random: () => number;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/** Resolves with the connection, or null when `signal` fires. Rejects with the peer's last word. */
export async function redial<T>(
  dial: (signal: AbortSignal) => Promise<T>,
  { clock, random, logger, signal }: RedialOptions,
): Promise<T | null> {
  const isStopped = (): boolean => signal.aborted;
  for (let attempt = 0; ; attempt++) {
    await untilOr(signal, clock, redialDelayMs(attempt, random));
    if (isStopped()) return null;
    const sinceMs = clock.nowMs();
    const timer = new AbortController();
    const cancelTimer = clock.after(ATTEMPT_MS_MAX, () => {
      timer.abort(new SessionError("the dest does not answer", { code: "peer-unreachable" }));
    });
    try {
      return await dial(AbortSignal.any([signal, timer.signal]));
    } catch (error) {
      if (isStopped()) return null;
      if (!timer.signal.aborted && !mayTryAgain(error)) throw error;
      logger.debug({ reason: messageOf(error), tookMs: clock.nowMs() - sinceMs }, "not back yet");
    } finally {
      cancelTimer();
    }
  }
}

/** The dest cannot be reached, which another attempt may change. */
function mayTryAgain(error: unknown): boolean {
  if (error instanceof SessionError) return error.code === "peer-unreachable";
  if (!(error instanceof PeerError)) return false;
  return error.code === "peer-unreachable" || mayComeBack(error);
}

function untilOr(signal: AbortSignal, clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const cancelTimer = clock.after(ms, () => {
      signal.removeEventListener("abort", stop);
      resolve();
    });
    const stop = (): void => {
      cancelTimer();
      resolve();
    };
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
  });
}
