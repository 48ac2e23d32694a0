/**
 * What keeps web pages out that the operator's browser happens to show. A page cannot read answers
 * of another origin, but it can open WebSockets, it can send a POST that has no body, and with a
 * name that it re-points at a loopback address (DNS rebinding) it becomes the same origin. A token
 * stops all of it; these checks do where none is configured. The agent's own page passes them.
 */
import type { IncomingHttpHeaders } from "node:http";
import { isIP } from "node:net";
import { ProblemError } from "../problem-error.ts";

/** Without a token, the host that a request names has to be one that no DNS server can re-point. */
export function hostRefusal(
  headers: IncomingHttpHeaders,
  token: string | null,
): ProblemError | null {
  const { host } = headers;
  if (token !== null || host === undefined) return null;
  const name = host
    .replace(/:\d*$/, "")
    .replace(/^\[(.*)\]$/, "$1")
    .toLowerCase();
  if (isIP(name) !== 0 || name === "localhost" || name.endsWith(".localhost")) return null;
  const detail = `Without an API token this agent answers to addresses and localhost, not ${name}.`;
  return new ProblemError(detail, { code: "host-not-allowed" });
}

/** Without a token, what acts has to come from the agent's own page, or from no page at all. */
export function siteRefusal(
  { method, headers }: { readonly method: string; readonly headers: IncomingHttpHeaders },
  token: string | null,
): ProblemError | null {
  return token !== null || method === "GET" || method === "HEAD" ? null : originRefusal(headers);
}

/** Browsers name the page's origin with a WebSocket, and with all but GET and HEAD; others name none. */
export function originRefusal({ origin, host }: IncomingHttpHeaders): ProblemError | null {
  if (origin === undefined || (host !== undefined && hostOf(origin) === hostOf(`http://${host}`))) {
    return null;
  }
  const detail = "Pages of other sites may neither act here nor open event streams.";
  return new ProblemError(detail, { code: "origin-not-allowed" });
}

/** Host and port as the URL parser writes them; what it cannot read equals nothing. */
function hostOf(origin: string): string | symbol {
  return URL.canParse(origin) ? new URL(origin).host : Symbol(origin);
}
