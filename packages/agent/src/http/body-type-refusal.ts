import type { IncomingHttpHeaders } from "node:http";
import { ProblemError } from "../problem-error.ts";

const JSON_TYPE = /^application\/json(?: *; *charset="?utf-8"?)?$/i;

/**
 * Bodies have one type and one spelling of it. A type that the parser takes for JSON and a
 * validator takes for something else is how validation has been bypassed before; here nothing but
 * the exact type comes as far as either.
 */
export function bodyTypeRefusal(headers: IncomingHttpHeaders): ProblemError | null {
  const { "content-length": length, "transfer-encoding": encoding } = headers;
  const hasBody = encoding !== undefined || (length !== undefined && length !== "0");
  const type = headers["content-type"] ?? "";
  if (!hasBody || JSON_TYPE.test(type)) return null;
  return new ProblemError("Send the body as Content-Type: application/json.", {
    code: "unsupported-media-type",
  });
}
