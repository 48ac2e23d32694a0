// For tests: an agent that does and says what the test wants, over real HTTP.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import type { Migration, MigrationEvent } from "./api/migration.ts";

const SAMPLE: Migration = {
  id: "m1",
  role: "source",
  guest: "web1",
  destination: "host-b",
  phase: "pre-copy",
  phases: [{ phase: "preparing", at: "2026-01-02T03:04:05.000Z" }],
  ram: {
    totalBytes: 536_870_912,
    sentBytes: 327_155_712,
    remainingBytes: 47_395_635,
    heldBytes: 0,
    zeroBytes: 104_857_600,
    unchangedBytes: 0,
    pass: 3,
    dirtyBytesPerSecond: 12_100_000,
  },
  disks: [],
  wire: { bytes: 327_200_000, bytesPerSecond: 98_200_000, reconnects: 0 },
  faults: { count: 0, p50Us: null, p99Us: null },
  fallback: null,
  predictedDowntimeMs: 120,
  etaMs: 600,
  result: null,
  error: null,
  mayCancel: true,
};

export function sampleMigration(changes: Partial<Migration> = {}): Migration {
  return { ...SAMPLE, ...changes };
}

export function sampleDisk(
  changes: Partial<Migration["disks"][number]> = {},
): Migration["disks"][number] {
  return {
    ...{ id: "disk0", mode: "copy", totalBytes: 2 * 1024 ** 3, copiedBytes: 1024 ** 3 },
    ...{ remainingBytes: 512 * 1024 ** 2, mirroredBytes: 3 * 1024 ** 2, heldBytes: 0, round: 1 },
    ...{ zeroBytes: 0, unchangedBytes: 0, savedBytes: 0 },
    ...changes,
  };
}

export function completedMigration(): Migration {
  const digests = { ramDigest: "00ff", diskDigests: {} };
  const result = { downtimeMs: 38, totalMs: 4200, wireBytes: 327_200_000, ...digests };
  return sampleMigration({ phase: "completed", result, mayCancel: false });
}

export function cancelledMigration(): Migration {
  const error = { code: "cancelled", detail: "cancelled by request" };
  return sampleMigration({ phase: "cancelled", error, mayCancel: false });
}

/** An event that comes `seconds` after the migration began. */
export function eventOf(migration: Migration, { id = 1, seconds = 1 } = {}): MigrationEvent {
  const at = new Date(Date.parse("2026-01-02T03:04:05.000Z") + seconds * 1000).toISOString();
  return { id, at, type: "migration.progress", migration };
}

export interface Answer {
  readonly status: number;
  readonly body: unknown;
  readonly type?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface SeenRequest {
  readonly route: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

type Handler = Answer | (() => Promise<Answer>);

export class FakeAgent {
  readonly requests: SeenRequest[] = [];
  readonly url: string;
  readonly #server: Server;
  readonly #answers = new Map<string, Handler>();
  readonly #streams = new Set<ServerResponse>();
  readonly #waiters: { readonly ready: () => boolean; readonly resolve: () => void }[] = [];
  #events: MigrationEvent[] = [];

  private constructor(server: Server) {
    const { port } = server.address() as AddressInfo;
    this.url = `http://127.0.0.1:${port}`;
    this.#server = server.on("request", (request, response) => {
      void this.#serve(request, response);
    });
  }

  static async open(): Promise<FakeAgent> {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const server = createServer().listen(0, "127.0.0.1", () => {
      resolve(undefined);
    });
    await promise;
    return new FakeAgent(server);
  }

  /** `route` is a method and a path: `GET /v1/guests`. */
  answer(route: string, handler: Handler): void {
    this.#answers.set(route, handler);
  }

  refuse(route: string, status: number, problem: Readonly<Record<string, unknown>>): void {
    const body = { type: "about:blank", title: "Refused", detail: "Not so.", status, ...problem };
    this.answer(route, { status, body, type: "application/problem+json; charset=utf-8" });
  }

  /** To those who listen, and later to those who ask for what they have missed. */
  publish(event: MigrationEvent): void {
    this.#events.push(event);
    for (const stream of this.#streams) stream.write(frameOf(event));
  }

  /** The events go on as before, but nobody hears of them any more. */
  cutStreams(): void {
    for (const stream of this.#streams) stream.destroy();
    this.#streams.clear();
  }

  endStreams(): void {
    for (const stream of this.#streams) stream.end();
    this.#streams.clear();
  }

  seen(route: string): readonly SeenRequest[] {
    return this.requests.filter((request) => request.route === route);
  }

  /** Resolves when that many requests of this route have come. */
  async waitFor(route: string, count = 1): Promise<void> {
    const ready = (): boolean => this.seen(route).length >= count;
    if (ready()) return;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#waiters.push({
      ready,
      resolve: () => {
        resolve(undefined);
      },
    });
    await promise;
  }

  /** Also twice. */
  async close(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#server.close(() => {
      resolve(undefined);
    });
    this.#server.closeAllConnections();
    await promise;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const route = `${request.method ?? ""} ${request.url ?? ""}`;
    this.requests.push({ route, headers: request.headers, body: await text(request) });
    const handler = this.#answers.get(route);
    if (handler !== undefined) {
      const answer = typeof handler === "function" ? await handler() : handler;
      const { status, body, type = "application/json; charset=utf-8", headers = {} } = answer;
      response.writeHead(status, { "content-type": type, ...headers });
      response.end(typeof body === "string" ? body : JSON.stringify(body));
    } else if (/^GET \/v1\/migrations\/[^/]+\/events$/.test(route)) {
      this.#stream(request, response);
    } else {
      const body = {
        title: "There is nothing here",
        status: 404,
        detail: route,
        code: "not-found",
      };
      response.writeHead(404, { "content-type": "application/problem+json" });
      response.end(JSON.stringify(body));
    }
    for (const waiter of this.#waiters) if (waiter.ready()) waiter.resolve();
  }

  #stream({ headers }: IncomingMessage, response: ServerResponse): void {
    const afterId = Number(headers["last-event-id"] ?? 0);
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write("retry: 2000\n\n");
    for (const event of this.#events) if (event.id > afterId) response.write(frameOf(event));
    this.#streams.add(response);
  }
}

function frameOf(event: MigrationEvent): string {
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}
