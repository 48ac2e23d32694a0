// The agent's HTTP API, one method a request. Whatever goes wrong is a CliError: the agent's own
// refusals are ProblemErrors, and where no agent answers it is an UnreachableError.

import { CliError } from "../cli-error.ts";
import { EventStreamParser } from "./event-stream-parser.ts";
import type { Check } from "./check.ts";
import type { Guest } from "./guest.ts";
import type {
  Complaint,
  Migration,
  MigrationEvent,
  MigrationPage,
  MigrationRequest,
} from "./migration.ts";
import { ProblemError, type Problem } from "./problem-error.ts";
import { causeOfFetchFailure, UnreachableError } from "./unreachable-error.ts";

const ANSWER_MS_MAX = 30_000;
/** The agents show every 15 s that a stream lives. */
const SILENCE_MS_MAX = 45_000;

export interface AgentApiOptions {
  readonly url: URL;
  readonly token: string | null;
}

export interface EventsOptions {
  /** Of the last event that came, null to begin with the first. */
  readonly lastEventId: string | null;
  readonly signal: AbortSignal;
}

export interface ReceivedEvent {
  readonly lastEventId: string | null;
  readonly event: MigrationEvent;
}

export interface Readiness {
  /** Why the agent cannot work now; nothing where it can. */
  readonly reasons: readonly Complaint[];
  /** Of this host's clock, give or take a second or two. */
  readonly clockAheadMs: number | null;
}

interface Call {
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
}

export class AgentApi {
  readonly url: URL;
  readonly #token: string | null;

  constructor({ url, token }: AgentApiOptions) {
    this.url = url;
    this.#token = token;
  }

  startMigration(body: MigrationRequest, signal?: AbortSignal): Promise<Migration> {
    return this.#ask({ method: "POST", path: "v1/migrations", body, signal });
  }

  migrations(limit: number): Promise<MigrationPage> {
    return this.#ask({ method: "GET", path: `v1/migrations?limit=${limit}` });
  }

  migration(id: string): Promise<Migration> {
    return this.#ask({ method: "GET", path: migrationPath(id) });
  }

  cancelMigration(id: string, signal?: AbortSignal): Promise<Migration> {
    return this.#ask({ method: "DELETE", path: migrationPath(id), signal });
  }

  switchToPostCopy(id: string): Promise<Migration> {
    return this.#ask({ method: "POST", path: `${migrationPath(id)}/post-copy` });
  }

  async preflight(body: MigrationRequest): Promise<readonly Check[]> {
    const path = "v1/migrations/preflight";
    const { checks } = await this.#ask<{ checks: Check[] }>({ method: "POST", path, body });
    return checks;
  }

  resolveMigration(id: string, owner: string): Promise<Migration> {
    const body = { owner, fenced: true };
    return this.#ask({ method: "POST", path: `${migrationPath(id)}/resolve`, body });
  }

  async guests(): Promise<readonly Guest[]> {
    const { guests } = await this.#ask<{ guests: Guest[] }>({ method: "GET", path: "v1/guests" });
    return guests;
  }

  guest(name: string): Promise<Guest> {
    return this.#ask({ method: "GET", path: guestPath(name) });
  }

  /** Needs no token. */
  async readiness(): Promise<Readiness> {
    try {
      const response = await this.#fetch({
        method: "GET",
        path: "readyz",
        signal: AbortSignal.timeout(ANSWER_MS_MAX),
      });
      if (!response.ok && response.status !== 503) throw await this.#refusal(response);
      const agentMs = Date.parse(response.headers.get("date") ?? "");
      const clockAheadMs = Number.isNaN(agentMs) ? null : agentMs - Date.now();
      const { reasons } = (await response.json()) as { reasons: Complaint[] };
      return { reasons, clockAheadMs };
    } catch (error) {
      throw this.#failure(error, undefined);
    }
  }

  startGuest(definition: unknown): Promise<Guest> {
    return this.#ask({ method: "POST", path: "v1/guests", body: definition });
  }

  stopGuest(name: string): Promise<Guest> {
    return this.#ask({ method: "DELETE", path: guestPath(name) });
  }

  /** One connection's worth of a migration's events; it ends, or fails, when the connection does. */
  async *migrationEvents(id: string, options: EventsOptions): AsyncGenerator<ReceivedEvent> {
    const { lastEventId, signal } = options;
    const silence = new SilenceWatch(SILENCE_MS_MAX);
    try {
      const response = await this.#fetch({
        method: "GET",
        path: `${migrationPath(id)}/events`,
        headers: {
          accept: "text/event-stream",
          ...(lastEventId === null ? {} : { "last-event-id": lastEventId }),
        },
        signal: AbortSignal.any([signal, silence.signal]),
      });
      if (!response.ok) throw await this.#refusal(response);
      // 204: there is nothing after that id and nothing will come.
      if (response.status === 204 || response.body === null) return;
      const parser = new EventStreamParser();
      for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
        silence.heard();
        for (const message of parser.push(text)) {
          const event = JSON.parse(message.data) as MigrationEvent;
          yield { lastEventId: message.lastEventId, event };
        }
      }
    } catch (error) {
      throw this.#failure(error, signal);
    } finally {
      silence.stop();
    }
  }

  async #ask<T>(call: Call): Promise<T> {
    const late = AbortSignal.timeout(ANSWER_MS_MAX);
    const signal = call.signal === undefined ? late : AbortSignal.any([call.signal, late]);
    try {
      const response = await this.#fetch({ ...call, signal });
      if (!response.ok) throw await this.#refusal(response);
      return (await response.json()) as T;
    } catch (error) {
      throw this.#failure(error, call.signal);
    }
  }

  #fetch({ method, path, body, headers, signal }: Call): Promise<Response> {
    return fetch(new URL(path, this.url), {
      method,
      // An agent does not redirect; what does is something else, and must not get the token.
      redirect: "error",
      headers: {
        ...headers,
        ...(this.#token === null ? {} : { authorization: `Bearer ${this.#token}` }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    });
  }

  async #refusal(response: Response): Promise<CliError> {
    const type = response.headers.get("content-type") ?? "nothing";
    if (type.startsWith("application/problem+json")) {
      return new ProblemError((await response.json()) as Problem);
    }
    await response.body?.cancel();
    const why = `what does answers with HTTP ${response.status} and ${type}`;
    return new UnreachableError(this.url, why);
  }

  /** What to throw for `error`: an abort that the caller asked for stays what it is. */
  #failure(error: unknown, signal: AbortSignal | undefined): unknown {
    if (error instanceof CliError || signal?.aborted === true) return error;
    if (error instanceof SyntaxError) {
      return new UnreachableError(this.url, "what does answers with other than JSON");
    }
    return new UnreachableError(this.url, causeOfFetchFailure(error), { cause: error });
  }
}

function migrationPath(id: string): string {
  return `v1/migrations/${encodeURIComponent(id)}`;
}

function guestPath(name: string): string {
  return `v1/guests/${encodeURIComponent(name)}`;
}

/** Aborts when nothing was heard for too long: a host that died does not close its connections. */
class SilenceWatch {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;

  constructor(silenceMsMax: number) {
    this.#timer = setTimeout(() => {
      this.#controller.abort(new DOMException("silence", "TimeoutError"));
    }, silenceMsMax);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  heard(): void {
    this.#timer.refresh();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
