/**
 * One event stream of the agent, for as long as it is wanted: read as lines, because an EventSource
 * could not send the token. A stream that breaks is taken up again after the last event that came.
 */
import type { AgentEvent } from "@vmferry/protocol";
import { AgentProblem, type AgentClient } from "./agent-client.ts";
import { LineSplitter } from "./line-splitter.ts";

/** `ended`: nothing more will come. */
export type FollowState = "connecting" | "live" | "ended" | "unauthorized";

export interface FollowOptions {
  readonly client: Pick<AgentClient, "events">;
  readonly path: string;
  readonly onEvent: (event: AgentEvent) => void;
  readonly onState: (state: FollowState) => void;
  readonly pause: (ms: number, signal: AbortSignal) => Promise<void>;
}

const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 8000;

export class EventFollower {
  readonly #options: FollowOptions;
  readonly #stopped = new AbortController();
  #lastEventId: number | null = null;

  constructor(options: FollowOptions) {
    this.#options = options;
  }

  stop(): void {
    this.#stopped.abort();
  }

  /** Resolves when the stream has ended, was stopped, or may not be read. Never rejects. */
  async run(): Promise<void> {
    const { onState, pause } = this.#options;
    let pauseMs = PAUSE_MS_MIN;
    while (!this.#isStopped()) {
      onState("connecting");
      const came = this.#lastEventId;
      const outcome = await this.#readOnce();
      if (outcome !== "broken") {
        if (!this.#isStopped()) onState(outcome);
        return;
      }
      pauseMs = this.#lastEventId === came ? Math.min(PAUSE_MS_MAX, pauseMs * 2) : PAUSE_MS_MIN;
      await pause(pauseMs, this.#stopped.signal);
    }
  }

  async #readOnce(): Promise<"ended" | "unauthorized" | "broken"> {
    const { client, path, onState } = this.#options;
    const { signal } = this.#stopped;
    try {
      const stream = await client.events(path, { lastEventId: this.#lastEventId, signal });
      if (stream === null) return "ended";
      onState("live");
      const lines = new LineSplitter();
      const decoder = new TextDecoder();
      const reader = stream.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return "broken";
        for (const line of lines.push(decoder.decode(value, { stream: true }))) this.#take(line);
      }
    } catch (error) {
      if (!(error instanceof AgentProblem)) return "broken";
      if (error.status === 401) return "unauthorized";
      return error.status === 404 ? "ended" : "broken";
    }
  }

  #isStopped(): boolean {
    return this.#stopped.signal.aborted;
  }

  #take(line: string): void {
    if (this.#isStopped()) return;
    const event = JSON.parse(line) as AgentEvent;
    this.#lastEventId = event.id;
    this.#options.onEvent(event);
  }
}

/** Until the time is up, or the signal fires. */
export function pauseFor(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
    signal.addEventListener("abort", done, { once: true });
    if (signal.aborted) done();
  });
}
