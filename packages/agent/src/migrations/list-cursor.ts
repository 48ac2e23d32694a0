import { ProblemError } from "../problem-error.ts";

/** Where the next page begins. Opaque to callers, so that what it holds may change. */
export function formatListCursor(ordinal: number): string {
  return Buffer.from(String(ordinal)).toString("base64url");
}

export function parseListCursor(cursor: string): number {
  const ordinal = Number(Buffer.from(cursor, "base64url").toString("latin1"));
  // Decoding is lenient, so only the way back shows that it was one of ours.
  if (!Number.isSafeInteger(ordinal) || ordinal < 1 || formatListCursor(ordinal) !== cursor) {
    const errors = [{ field: "cursor", detail: "is not a nextCursor that this agent gave" }];
    throw new ProblemError("The cursor is not valid.", { code: "invalid-request", errors });
  }
  return ordinal;
}
