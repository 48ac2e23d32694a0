import type { Check } from "../api/check.ts";

/** What came of looking at one thing. */
export type Finding = Omit<Check, "name">;

export function passes(detail: string): Finding {
  return { status: "pass", detail, hint: null };
}

export function warns(detail: string, hint: string): Finding {
  return { status: "warn", detail, hint };
}

export function fails(detail: string, hint: string): Finding {
  return { status: "fail", detail, hint };
}

export function skips(detail: string): Finding {
  return { status: "skip", detail, hint: null };
}
