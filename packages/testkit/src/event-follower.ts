// Follows an agent's Server-Sent Events the way a dashboard does.

import { Deferred, messageOf } from "@vmferry/core";
import type { AgentEvent } from "@vmferry/protocol";

interface Waiter {
  readonly predicate: (event: AgentEvent) => boolean;
  readonly found: Deferred<AgentEvent>;
}

export class EventFollower {
  readonly events: AgentEvent[] = [];
  readonly #abort = new AbortController();
  #waiters: Waiter[] = [];
  #text = "";

  /** @param path such as `/v1/migrations/{id}/events`, which tells the story from its beginning */
  static async open(apiUrl: string, path: string): Promise<EventFollower> {
    const follower = new EventFollower();
    const response = await fetch(new URL(path, apiUrl), {
      headers: { accept: "text/event-stream" },
      signal: follower.#abort.signal,
    });
    if (!response.ok || response.body === null) {
      throw new Error(`${path} answers with status ${response.status}`);
    }
    void follower.#read(response.body);
    return follower;
  }

  /** The first event that matches, also one that came before. */
  async waitFor(
    predicate: (event: AgentEvent) => boolean,
    { timeoutMs }: { readonly timeoutMs: number },
  ): Promise<AgentEvent> {
    const known = this.events.find(predicate);
    if (known !== undefined) return known;
    const found = new Deferred<AgentEvent>();
    this.#waiters.push({ predicate, found });
    const timer = setTimeout(() => {
      const types = this.events.map(({ type }) => type).join(" ");
      found.reject(new Error(`no such event within ${timeoutMs} ms, only: ${types}`));
    }, timeoutMs);
    return found.promise.finally(() => {
      clearTimeout(timer);
    });
  }

  close(): void {
    this.#abort.abort();
  }

  async #read(body: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let reason = "the stream has ended";
    try {
      for await (const chunk of body) this.#take(decoder.decode(chunk, { stream: true }));
    } catch (error) {
      reason = messageOf(error);
    }
    for (const { found } of this.#waiters) found.reject(new Error(reason));
  }

  #take(text: string): void {
    const blocks = (this.#text + text).split("\n\n");
    this.#text = blocks.pop() ?? "";
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data: "));
      if (data !== undefined) this.#add(JSON.parse(data.slice("data: ".length)) as AgentEvent);
    }
  }

  #add(event: AgentEvent): void {
    this.events.push(event);
    const met = this.#waiters.filter(({ predicate }) => predicate(event));
    this.#waiters = this.#waiters.filter((waiter) => !met.includes(waiter));
    for (const { found } of met) found.resolve(event);
  }
}
