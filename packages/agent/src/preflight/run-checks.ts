/** What is looked at before a migration: named checks, all at once, each in a bounded time. */
import { messageOf, type Clock } from "@vmferry/core";
import type { Check } from "@vmferry/protocol";

/** What a check has found. */
export type Finding = Omit<Check, "name">;

/** By their names. */
export type Checks = Readonly<Record<string, () => Finding | Promise<Finding>>>;

export interface CheckLimits {
  readonly clock: Clock;
  /** For each of them. */
  readonly msMax: number;
}

export function passes(detail: string): Finding {
  return { status: "pass", detail, hint: null };
}

export function warns(detail: string, hint: string): Finding {
  return { status: "warn", detail, hint };
}

export function fails(detail: string, hint: string): Finding {
  return { status: "fail", detail, hint };
}

/** It could not be looked at, or there is nothing to look at. */
export function skips(detail: string): Finding {
  return { status: "skip", detail, hint: null };
}

/**
 * In the order of `checks`; never rejects. What could not be looked at is a warning: it is no reason
 * to refuse, for whoever begins looks again, and none to be silent about either.
 */
export function runChecks(checks: Checks, { clock, msMax }: CheckLimits): Promise<Check[]> {
  const running = Object.entries(checks).map(async ([name, run]): Promise<Check> => {
    try {
      const finding = await inTime(Promise.resolve().then(run), { clock, msMax });
      return { name, ...finding };
    } catch (error) {
      const detail = `It could not be looked at: ${messageOf(error)}`;
      return { name, ...warns(detail, "See to that, and check again.") };
    }
  });
  return Promise.all(running);
}

/** Rejects when it takes longer; then nobody waits for it any more. */
export async function inTime<T>(work: Promise<T>, { clock, msMax }: CheckLimits): Promise<T> {
  let cancelTimer = (): void => undefined;
  const late = new Promise<never>((_, reject) => {
    cancelTimer = clock.after(msMax, () => {
      reject(new Error(`no answer within ${msMax} ms`));
    });
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    cancelTimer();
  }
}
