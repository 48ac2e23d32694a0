import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { ProblemError } from "../problem-error.ts";

/** Why the request may not be served, or null: it carries `token`, or none is configured. */
export function bearerRefusal(
  headers: IncomingHttpHeaders,
  token: string | null,
): ProblemError | null {
  if (token === null) return null;
  const given = /^bearer +(\S+)$/i.exec(headers.authorization ?? "")?.[1];
  if (given !== undefined && equalInConstantTime(given, token)) return null;
  const detail =
    given === undefined ? "Send the header Authorization: Bearer TOKEN." : "The token is wrong.";
  return new ProblemError(detail, { code: "unauthorized" });
}

/** Digests have one length, so that neither the content nor the length of the token shows. */
function equalInConstantTime(given: string, token: string): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(token));
}
