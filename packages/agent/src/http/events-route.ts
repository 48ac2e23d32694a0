import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { messageOf } from "@vmferry/core";
import type { FastifyReply, FastifyRequest } from "fastify";
import { Type } from "typebox";
import type { EventSubscription } from "../events/event-subscription.ts";
import { acceptedEventFormat, type EventFormat } from "./event-format.ts";
import { listenToEvents, parseAfterId, type EventSources } from "./event-listening.ts";
import type { HttpServer } from "./http-server.ts";
import { problems } from "./described-responses.ts";

const params = Type.Object({ id: Type.String() });
/** An empty one is none, as browsers send it. */
const EventId = Type.String({ pattern: "^[0-9]{0,15}$" });
const querystring = Type.Object({ after: Type.Optional(EventId) }, { additionalProperties: false });

const LAST_EVENT_ID = "last-event-id";
const headers = Type.Object({ [LAST_EVENT_ID]: Type.Optional(EventId) });

const STREAM = Type.String({ description: "Event after event; each holds an Event in JSON." });
const response = {
  200: {
    description: "A stream that stays open; that of one migration ends with its final event.",
    content: {
      "text/event-stream": { schema: STREAM },
      "application/x-ndjson": { schema: STREAM },
    },
  },
  204: { type: "null", description: "The final event has been seen: no other will come." },
  ...problems("migration-not-found", "not-acceptable", "too-many-streams"),
};
const ABOUT = `Server-Sent Events, or a line of JSON an event by \`Accept: application/x-ndjson\`, or \
a WebSocket by an upgrade on the same path. \`Last-Event-ID\` (or \`after\`) replays what came later \
than that event. A slow listener loses progress events, and is cut off rather than lose another.`;

interface EventsRequest {
  Querystring: { after?: string };
}

/** Server-Sent Events or lines of JSON; the WebSocket on the same paths is in event-sockets.ts. */
export function registerEventRoutes(app: HttpServer, sources: EventSources): void {
  // A HEAD would have to open the stream to answer.
  const exposeHeadRoute = false;

  app.get<EventsRequest>(
    "/v1/events",
    {
      exposeHeadRoute,
      schema: {
        tags: ["events"],
        operationId: "listen",
        summary: "Everything that happens on this agent, from now on",
        description: ABOUT,
        headers,
        querystring,
        response,
      },
    },
    (request, reply) => answer(sources, { request, reply, migrationId: undefined }),
  );

  app.get<EventsRequest & { Params: { id: string } }>(
    "/v1/migrations/:id/events",
    {
      exposeHeadRoute,
      schema: {
        tags: ["events"],
        operationId: "listenToMigration",
        summary: "The events of one migration, from its beginning to its end",
        description: ABOUT,
        params,
        headers,
        querystring,
        response,
      },
    },
    (request, reply) => answer(sources, { request, reply, migrationId: request.params.id }),
  );
}

interface Exchange {
  readonly request: FastifyRequest<EventsRequest>;
  readonly reply: FastifyReply;
  readonly migrationId: string | undefined;
}

function answer(sources: EventSources, { request, reply, migrationId }: Exchange): FastifyReply {
  const format = acceptedEventFormat(request.headers.accept);
  const afterId = parseAfterId(request.headers[LAST_EVENT_ID], request.query.after);
  const subscription = listenToEvents(sources, { migrationId, afterId });
  reply.header("vary", "Accept");
  // 204 is what keeps an EventSource from coming back for more, for ever.
  if (subscription.exhausted) return reply.code(204).send();
  // From here the answer is not fastify's: it would hold the headers back until the first event.
  reply.hijack();
  void stream(reply, frames(subscription, format, sources.heartbeatMs), {
    "content-type": format.contentType,
    // A proxy that collects what it forwards would turn a stream into a download.
    "x-accel-buffering": "no",
  })
    .catch((thrown: unknown) => {
      request.log.debug({ reason: messageOf(thrown) }, "event stream cut");
    })
    .finally(() => {
      subscription.close();
    });
  reply.raw.once("close", () => {
    subscription.close();
  });
  // Cut, not ended: the client sees that there is more to be had.
  void subscription.overflow.then(() => reply.raw.destroy());
  return reply;
}

async function stream(
  reply: FastifyReply,
  source: AsyncIterable<Buffer | string>,
  headers: Record<string, string>,
): Promise<void> {
  const { raw } = reply;
  for (const [name, value] of Object.entries({ ...reply.getHeaders(), ...headers })) {
    if (value !== undefined) raw.setHeader(name, value);
  }
  raw.flushHeaders();
  // The pipeline takes the next event when the socket has taken the last: what a slow client has
  // not read waits in its subscription, which is bounded, and nowhere else.
  await pipeline(Readable.from(source), raw);
}

async function* frames(
  subscription: EventSubscription,
  format: EventFormat,
  heartbeatMs: number,
): AsyncGenerator<Buffer | string> {
  if (format.opening !== "") yield format.opening;
  for (;;) {
    const delivery = await subscription.next(heartbeatMs);
    if (delivery === "ended") return;
    if (delivery === "overflowed") throw new Error("the listener is too slow");
    if (delivery !== "idle") yield format.encode(delivery);
    else if (format.heartbeat !== "") yield format.heartbeat;
  }
}
