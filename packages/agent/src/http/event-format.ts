import type { AgentEvent } from "@vmferry/protocol";
import { ProblemError } from "../problem-error.ts";
import { sharedEncoding } from "./shared-encoding.ts";

/** How events look on the way to a client that asked for this type. */
export interface EventFormat {
  readonly contentType: string;
  /** What comes first: the client then knows at once that the stream stands. */
  readonly opening: string;
  readonly heartbeat: string;
  /** The buffer is shared by all who listen: nobody writes to it. */
  encode(event: AgentEvent): Buffer;
}

/** JSON of the event, serialised once for all formats and listeners. */
const jsonOf = sharedEncoding((event) => JSON.stringify(event));

/** A text frame of the WebSocket. */
export const encodeMessage = sharedEncoding((event) => Buffer.from(jsonOf(event)));

const RETRY_MS = 2000;

const SERVER_SENT_EVENTS: EventFormat = {
  contentType: "text/event-stream",
  opening: `retry: ${RETRY_MS}\n\n`,
  heartbeat: ": heartbeat\n\n",
  // JSON text has no line breaks, so one data line always is enough.
  encode: sharedEncoding((event) =>
    Buffer.from(`id: ${event.id}\nevent: ${event.type}\ndata: ${jsonOf(event)}\n\n`),
  ),
};

const LINES: EventFormat = {
  contentType: "application/x-ndjson",
  opening: "",
  // Readers take each line for an event, an empty one too: TCP's own keep-alive has to do.
  heartbeat: "",
  encode: sharedEncoding((event) => Buffer.from(`${jsonOf(event)}\n`)),
};

/** In the order in which they are preferred where the client does not mind. */
const OFFERED = [SERVER_SENT_EVENTS, LINES];

/** The format that an Accept header asks for; throws `not-acceptable`. */
export function acceptedEventFormat(accept: string | undefined): EventFormat {
  const ranges = (accept ?? "*/*").split(",").map(parseRange);
  let best: { format: EventFormat; quality: number } | null = null;
  for (const format of OFFERED) {
    const quality = qualityOf(format.contentType, ranges);
    if (quality > (best?.quality ?? 0)) best = { format, quality };
  }
  if (best !== null) return best.format;
  const offered = OFFERED.map(({ contentType }) => contentType).join(" and ");
  throw new ProblemError(`Offered here: ${offered}, and WebSocket by an upgrade.`, {
    code: "not-acceptable",
  });
}

interface MediaRange {
  readonly type: string;
  readonly quality: number;
}

function parseRange(text: string): MediaRange {
  const [type = "", ...parameters] = text.split(";").map((part) => part.trim().toLowerCase());
  const q = parameters.find((parameter) => parameter.startsWith("q="))?.slice(2);
  const quality = q === undefined ? 1 : Number(q);
  return { type, quality: Number.isFinite(quality) ? quality : 0 };
}

/** The most specific range decides, as RFC 9110 12.5.1 has it. */
function qualityOf(contentType: string, ranges: readonly MediaRange[]): number {
  const family = `${contentType.split("/")[0] ?? ""}/*`;
  for (const candidate of [contentType, family, "*/*"]) {
    const range = ranges.find(({ type }) => type === candidate);
    if (range !== undefined) return range.quality;
  }
  return 0;
}
