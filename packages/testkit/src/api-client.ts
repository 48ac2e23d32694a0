// A thin client of an agent's HTTP API for tests, demo and benchmarks.

import { AgentError } from "@vmferry/core";
import type { GuestObject, MigrationObject, Problem } from "@vmferry/protocol";

/** The API answered with a problem. */
export class ApiProblem extends AgentError<{
  readonly code: string;
  readonly status: number;
  readonly problem: Problem;
}> {}

export class ApiClient {
  readonly url: string;
  readonly #headers: Record<string, string>;

  constructor(url: string, token: string | null) {
    this.url = url;
    this.#headers = token === null ? {} : { authorization: `Bearer ${token}` };
  }

  startGuest(definition: unknown): Promise<GuestObject> {
    return this.request("POST", "/v1/guests", definition);
  }

  async guests(): Promise<readonly GuestObject[]> {
    const { guests } = await this.request<{ guests: GuestObject[] }>("GET", "/v1/guests");
    return guests;
  }

  guest(name: string): Promise<GuestObject> {
    return this.request("GET", `/v1/guests/${name}`);
  }

  powerOff(name: string): Promise<GuestObject> {
    return this.request("DELETE", `/v1/guests/${name}`);
  }

  migrate(request: unknown): Promise<MigrationObject> {
    return this.request("POST", "/v1/migrations", request);
  }

  /** Newest first. */
  async migrations(): Promise<readonly MigrationObject[]> {
    const list = await this.request<{ migrations: MigrationObject[] }>("GET", "/v1/migrations");
    return list.migrations;
  }

  migration(id: string): Promise<MigrationObject> {
    return this.request("GET", `/v1/migrations/${id}`);
  }

  wait(id: string, timeoutMs: number): Promise<MigrationObject> {
    return this.request("GET", `/v1/migrations/${id}/wait?timeoutMs=${timeoutMs}`);
  }

  cancel(id: string): Promise<MigrationObject> {
    return this.request("DELETE", `/v1/migrations/${id}`);
  }

  /** An operator says whose the guest is. */
  resolve(id: string, owner: "source" | "dest"): Promise<MigrationObject> {
    return this.request("POST", `/v1/migrations/${id}/resolve`, { owner, fenced: true });
  }

  /** Rejects with ApiProblem, or with what `fetch` rejects with. */
  async request<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(new URL(path, this.url), {
      method,
      headers: {
        ...this.#headers,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const answer: unknown = await response.json();
    if (response.ok) return answer as T;
    const problem = answer as Problem;
    throw new ApiProblem(`${method} ${path}: ${problem.detail}`, {
      code: problem.code,
      status: response.status,
      problem,
    });
  }
}
