// Whatever wants the demo to end before its time: Ctrl-C, a supervisor, a closed terminal or pipe,
// a bug. All of them only ask; the demo then cleans up, and nothing cuts that short.

import { setTimeout as delay } from "node:timers/promises";
import { AgentError, messageOf } from "@vmferry/core";

const EXIT_BY_SIGNAL = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
const EXIT_PIPE_CLOSED = 141;
const EXIT_FAILED = 1;
/** Within which a signal shows that has been sent to all processes of the terminal. */
const SIGNAL_MS_MAX = 250;

export class InterruptionError extends AgentError<{
  readonly code: "demo-interrupted";
  readonly exitCode: number;
}> {}

/** The signal's reason is an InterruptionError. Call it before anything that needs cleaning up. */
export function listenForInterruption(): AbortSignal {
  const controller = new AbortController();
  const interrupt = (why: string, exitCode: number): void => {
    const detail = { code: "demo-interrupted", exitCode } as const;
    controller.abort(new InterruptionError(why, detail));
  };
  for (const [signal, exitCode] of Object.entries(EXIT_BY_SIGNAL)) {
    process.on(signal, () => {
      interrupt(`interrupted by ${signal}`, exitCode);
    });
  }
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", () => {
      interrupt("nobody reads the output any more", EXIT_PIPE_CLOSED);
    });
  }
  process.on("uncaughtException", (error) => {
    interrupt(`a bug: ${error.stack ?? messageOf(error)}`, EXIT_FAILED);
  });
  return controller.signal;
}

/**
 * The interruption that made something fail, or null. A Ctrl-C reaches the agents as well, and what
 * they drop because of it may be seen here before the signal is.
 */
export async function interruptionBehind(
  error: unknown,
  signal: AbortSignal,
): Promise<InterruptionError | null> {
  if (error instanceof InterruptionError) return error;
  await delay(SIGNAL_MS_MAX, null, { signal }).catch(() => null);
  const reason: unknown = signal.reason;
  return reason instanceof InterruptionError ? reason : null;
}

/** Resolves with `work`, or rejects at once with the reason of the interruption. */
export async function unlessInterrupted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: interrupted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => {
    reject(signal.reason as Error);
  };
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort);
  try {
    return await Promise.race([work, interrupted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
