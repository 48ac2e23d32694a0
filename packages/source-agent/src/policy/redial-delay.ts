import { limits } from "@vmferry/protocol";

const { REDIAL_MS_MIN, REDIAL_MS_MAX } = limits;

/**
 * From the beginning of one attempt to that of the next: doubled with each, and shortened by up to a
 * half at random, so that many who lost the same link do not come back in step.
 */
export function redialDelayMs(attempt: number, random: () => number): number {
  const fullMs = Math.min(REDIAL_MS_MAX, REDIAL_MS_MIN * 2 ** Math.min(attempt, 30));
  return fullMs * (1 - random() / 2);
}
