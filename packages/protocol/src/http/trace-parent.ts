/** The `traceparent` header of W3C Trace Context, by which a migration is part of somebody's trace. */

/** As agents pass it on: version 00. */
export const TRACE_PARENT_PATTERN = "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$";

const TRACE_PARENT =
  /^(?<version>[0-9a-f]{2})-(?<traceId>[0-9a-f]{32})-(?<parentId>[0-9a-f]{16})-(?<flags>[0-9a-f]{2})(?<more>-.*)?$/;

/** Null where the header is not valid, which is the same as none: no request is refused for it. */
export function parseTraceParent(header: string | undefined): string | null {
  const groups = TRACE_PARENT.exec(header ?? "")?.groups;
  if (groups === undefined) return null;
  const { version = "", traceId = "", parentId = "", flags = "", more } = groups;
  // Later versions may add something behind what this one has.
  const isKnown = version === "00" ? more === undefined : version !== "ff";
  if (!isKnown || /^0+$/.test(traceId) || /^0+$/.test(parentId)) return null;
  return `00-${traceId}-${parentId}-${flags}`;
}

/** What logs and migration objects show of it. */
export function traceIdOf(traceParent: string | null | undefined): string | null {
  return traceParent?.split("-")[1] ?? null;
}
