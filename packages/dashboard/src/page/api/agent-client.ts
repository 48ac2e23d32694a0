/** The agent's HTTP API, as far as this page uses it. */
import type {
  GuestObject,
  MigrationLimitsPatch,
  MigrationList,
  MigrationMap,
  MigrationObject,
  Problem,
} from "@vmferry/protocol";

/** What is shown of a list; older ones are a matter of the command line. */
const MIGRATIONS_SHOWN_MAX = 200;

/** The agent answered with a problem; status 0: it did not answer. */
export class AgentProblem extends Error {
  readonly status: number;
  readonly code: string;

  constructor(detail: string, { status, code }: { status: number; code: string }) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

export class AgentClient {
  readonly #token: () => string | null;

  constructor(token: () => string | null) {
    this.#token = token;
  }

  async guests(): Promise<readonly GuestObject[]> {
    return (await this.#json<{ guests: readonly GuestObject[] }>("GET", "/v1/guests")).guests;
  }

  async migrations(): Promise<readonly MigrationObject[]> {
    const path = `/v1/migrations?limit=${MIGRATIONS_SHOWN_MAX}`;
    return (await this.#json<MigrationList>("GET", path)).migrations;
  }

  migration(id: string): Promise<MigrationObject> {
    return this.#json("GET", pathOf(id));
  }

  map(id: string, cells: number): Promise<MigrationMap> {
    return this.#json("GET", `${pathOf(id)}/map?cells=${cells}`);
  }

  cancel(id: string): Promise<MigrationObject> {
    return this.#json("DELETE", pathOf(id));
  }

  switchToPostCopy(id: string): Promise<MigrationObject> {
    return this.#json("POST", `${pathOf(id)}/post-copy`);
  }

  setLimits(id: string, limits: MigrationLimitsPatch): Promise<MigrationObject> {
    return this.#json("PATCH", pathOf(id), { limits });
  }

  /** Whether this version of the agent switches to post-copy: a route says what else it offers. */
  async offersPostCopy(id: string): Promise<boolean> {
    const answer = await this.#fetch("GET", `${pathOf(id)}/post-copy`);
    return answer.status === 405;
  }

  /** The lines of an event stream; null where nothing is to come. */
  async events(
    path: string,
    options: { readonly lastEventId: number | null; readonly signal: AbortSignal },
  ): Promise<ReadableStream<Uint8Array> | null> {
    const { lastEventId, signal } = options;
    const headers: Record<string, string> = { accept: "application/x-ndjson" };
    if (lastEventId !== null) headers["last-event-id"] = String(lastEventId);
    const answer = await this.#fetch("GET", path, { headers, signal });
    if (!answer.ok) throw await problemOf(answer);
    return answer.status === 204 ? null : answer.body;
  }

  async #json<T>(method: string, path: string, body?: unknown): Promise<T> {
    const request: RequestInit = {};
    if (body !== undefined) {
      request.headers = { "content-type": "application/json" };
      request.body = JSON.stringify(body);
    }
    const answer = await this.#fetch(method, path, request);
    if (!answer.ok) throw await problemOf(answer);
    return (await answer.json()) as T;
  }

  async #fetch(method: string, path: string, request: RequestInit = {}): Promise<Response> {
    const headers = new Headers(request.headers);
    const token = this.#token();
    if (token !== null) headers.set("authorization", `Bearer ${token}`);
    try {
      return await fetch(path, { ...request, method, headers, cache: "no-store" });
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      throw new AgentProblem("The agent does not answer.", { status: 0, code: "unreachable" });
    }
  }
}

/** Events of one migration, from its beginning. */
export function eventsPathOf(id: string): string {
  return `${pathOf(id)}/events`;
}

function pathOf(id: string): string {
  return `/v1/migrations/${encodeURIComponent(id)}`;
}

async function problemOf(answer: Response): Promise<AgentProblem> {
  const { status } = answer;
  try {
    const { detail, code } = (await answer.json()) as Problem;
    return new AgentProblem(detail, { status, code });
  } catch {
    return new AgentProblem(`The agent answered ${status}.`, { status, code: "unknown" });
  }
}
