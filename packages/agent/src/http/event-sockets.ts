/**
 * Events by WebSocket, on the paths of the event routes: one text frame an event, nothing is
 * expected from the client. Upgrades do not pass through fastify, so what its hooks check for
 * requests is checked here once more, before a byte of WebSocket is spoken.
 */
import type { IncomingMessage } from "node:http";
import { makeProblem } from "@vmferry/protocol";
import { WebSocketServer, type WebSocket } from "ws";
import type { EventSubscription } from "../events/event-subscription.ts";
import { ProblemError } from "../problem-error.ts";
import { bearerRefusal } from "./bearer-refusal.ts";
import { hostRefusal, originRefusal } from "./browser-refusal.ts";
import { endWithProblem } from "./client-error.ts";
import {
  listenToEvents,
  parseAfterId,
  type EventRequest,
  type EventSources,
} from "./event-listening.ts";
import { encodeMessage } from "./event-format.ts";
import { problemOf } from "./problem-reply.ts";
import type { HttpServer } from "./http-server.ts";

/** A client has nothing to say; this is room for somebody's idea of a keep-alive. */
const INCOMING_BYTES_MAX = 1024;
/** Answers to a client's pings may wait this long in the socket of one that does not read. */
const PONG_BACKLOG_BYTES_MAX = 4096;

export interface UpgradeOptions extends EventSources {
  readonly apiToken: string | null;
}

/** Serves upgrades of the event paths until the server closes. */
export function attachUpgrades(app: HttpServer, options: UpgradeOptions): void {
  const sockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: INCOMING_BYTES_MAX,
    maxFragments: 4,
    maxBufferedChunks: 64,
    autoPong: false,
  });
  sockets.on("wsClientError", (error, socket) => {
    endWithProblem(socket, makeProblem("invalid-request", error.message));
  });
  app.server.on("upgrade", (request, socket, head) => {
    // Whatever happens to a socket that is being refused concerns nobody.
    socket.on("error", () => socket.destroy());
    try {
      const subscription = listenToEvents(options, admit(request, options.apiToken));
      // Should the handshake fail, nobody else knows of the subscription.
      socket.once("close", () => {
        subscription.close();
      });
      sockets.handleUpgrade(request, socket, head, (webSocket) => {
        serve(webSocket, subscription, options.heartbeatMs);
      });
    } catch (thrown) {
      endWithProblem(socket, problemOf(thrown));
    }
  });
  // Upgraded sockets are not among the connections that the server closes by itself.
  app.addHook("preClose", (done) => {
    for (const client of sockets.clients) client.terminate();
    done();
  });
}

/** Which events the request is for, provided that it may have them. */
function admit(request: IncomingMessage, apiToken: string | null): EventRequest {
  const { headers } = request;
  const refusal =
    hostRefusal(headers, apiToken) ?? originRefusal(headers) ?? bearerRefusal(headers, apiToken);
  if (refusal !== null) throw refusal;
  const { pathname, searchParams } = parseTarget(request.url ?? "");
  const path = /^\/v1\/(?:events|migrations\/([^/]{1,100})\/events)$/.exec(pathname);
  if (path === null) {
    throw new ProblemError("Only event streams can be upgraded.", { code: "not-found" });
  }
  const after = searchParams.get("after") ?? undefined;
  return { migrationId: path[1], afterId: parseAfterId(headers["last-event-id"], after) };
}

function parseTarget(target: string): URL {
  const url = URL.parse(target, "http://agent.invalid");
  if (url !== null) return url;
  throw new ProblemError("The URL is not valid.", { code: "invalid-request" });
}

function serve(webSocket: WebSocket, subscription: EventSubscription, heartbeatMs: number): void {
  let answered = true;
  const heartbeat = setInterval(() => {
    // A client that has not read for two heartbeats cannot be told from one that is gone.
    if (!answered) {
      webSocket.terminate();
      return;
    }
    answered = false;
    webSocket.ping();
  }, heartbeatMs);
  webSocket.on("pong", () => {
    answered = true;
  });
  webSocket.on("ping", (data: Buffer) => {
    if (webSocket.bufferedAmount < PONG_BACKLOG_BYTES_MAX) webSocket.pong(data);
  });
  // Too long a message, a broken frame: ws closes the connection with the code for it.
  webSocket.on("error", () => undefined);
  webSocket.on("close", () => {
    clearInterval(heartbeat);
    subscription.close();
  });
  // No close frame: it would wait behind what the client does not read.
  void subscription.overflow.then(() => {
    webSocket.terminate();
  });
  void feed(webSocket, subscription, heartbeatMs);
}

async function feed(
  webSocket: WebSocket,
  subscription: EventSubscription,
  heartbeatMs: number,
): Promise<void> {
  for (;;) {
    const delivery = await subscription.next(heartbeatMs);
    if (delivery === "ended") {
      webSocket.close(1000);
      return;
    }
    if (delivery === "overflowed") return;
    if (delivery !== "idle") await sent(webSocket, encodeMessage(delivery));
  }
}

/** Resolves when the socket has taken the text, or never will: the next event shows which. */
function sent(webSocket: WebSocket, text: Buffer): Promise<void> {
  return new Promise((resolve) => {
    webSocket.send(text, { binary: false }, () => {
      resolve();
    });
  });
}
