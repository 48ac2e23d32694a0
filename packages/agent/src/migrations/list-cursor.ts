import { ProblemError } from "../problem-error.ts";

/** Where a migration stands among the others. */
export interface ListPlace {
  /** When it began, as a date; what is not known of one is told later than that. */
  readonly atMs: number;
  /** What this agent heard of first is the older one of the same instant. */
  readonly ordinal: number;
}

/** Negative where `a` is the older one. */
export function comparePlaces(a: ListPlace, b: ListPlace): number {
  return a.atMs - b.atMs || a.ordinal - b.ordinal;
}

/** Where the next page begins. Opaque to callers, so that what it holds may change. */
export function formatListCursor({ atMs, ordinal }: ListPlace): string {
  return Buffer.from(`${atMs}.${ordinal}`).toString("base64url");
}

export function parseListCursor(cursor: string): ListPlace {
  const parts = Buffer.from(cursor, "base64url").toString("latin1").split(".").map(Number);
  const [atMs = NaN, ordinal = NaN] = parts;
  const isPlace = Number.isSafeInteger(atMs) && Number.isSafeInteger(ordinal);
  // Decoding is lenient, so only the way back shows that it was one of ours.
  if (!isPlace || formatListCursor({ atMs, ordinal }) !== cursor) {
    const errors = [{ field: "cursor", detail: "is not a nextCursor that this agent gave" }];
    throw new ProblemError("The cursor is not valid.", { code: "invalid-request", errors });
  }
  return { atMs, ordinal };
}
