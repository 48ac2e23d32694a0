// Follows one migration to its end, over as many connections as it takes. Each new one begins after
// the last event that came, so nothing is missed but progress that was overtaken.

import { setTimeout as delay } from "node:timers/promises";
import type { AgentApi } from "../api/agent-api.ts";
import { isFinalPhase, type Migration, type MigrationEvent } from "../api/migration.ts";
import { ProblemError } from "../api/problem-error.ts";
import { UnreachableError } from "../api/unreachable-error.ts";
import { CliError } from "../cli-error.ts";
import { EXIT_CODE } from "../exit-code.ts";

const RETRY: RetryPace = { firstMs: 250, mostMs: 2000, giveUpMs: 30_000 };

export interface RetryPace {
  readonly firstMs: number;
  readonly mostMs: number;
  /** Without a single event for this long, while trying, the agent is given up. */
  readonly giveUpMs: number;
}

export interface FollowOptions {
  readonly api: AgentApi;
  readonly id: string;
  readonly onEvent: (event: MigrationEvent) => void;
  /** Something to tell a person that is not an event: the connection was lost. */
  readonly onNotice?: (text: string) => void;
  /** Ends the following, not the migration: the promise rejects with the signal's reason. */
  readonly signal: AbortSignal;
  readonly retry?: RetryPace;
}

/** Resolves with the migration as it ended, whatever that end is. */
export async function followMigration(options: FollowOptions): Promise<Migration> {
  const { signal, retry = RETRY } = options;
  const connections = new Connections(options);
  let lostAtMs: number | null = null;
  let delayMs = retry.firstMs;
  for (;;) {
    const outcome = await connections.next();
    if ("ended" in outcome) return outcome.ended;
    if (outcome.heard || lostAtMs === null) {
      lostAtMs = performance.now();
      delayMs = retry.firstMs;
      options.onNotice?.(`Lost the agent at ${options.api.url.origin}; trying again.`);
    }
    if (performance.now() - lostAtMs > retry.giveUpMs) throw givenUp(options, outcome.lost);
    await delay(delayMs, undefined, { signal });
    delayMs = Math.min(delayMs * 2, retry.mostMs);
  }
}

type ConnectionOutcome =
  | { readonly ended: Migration }
  /** Why it ended before the migration did, and whether anything had come by then. */
  | { readonly lost: UnreachableError; readonly heard: boolean };

class Connections {
  readonly #options: FollowOptions;
  #lastEventId: string | null = null;
  #lost = false;

  constructor(options: FollowOptions) {
    this.#options = options;
  }

  /** One connection, until it or the migration ends. Throws what trying again would not help. */
  async next(): Promise<ConnectionOutcome> {
    const outcome = await this.#connect();
    if ("lost" in outcome) this.#lost = true;
    return outcome;
  }

  async #connect(): Promise<ConnectionOutcome> {
    const { api, id, onEvent, onNotice, signal } = this.#options;
    let heard = false;
    try {
      const options = { lastEventId: this.#lastEventId, signal };
      for await (const { event, lastEventId } of api.migrationEvents(id, options)) {
        if (!heard && this.#lost) onNotice?.("The agent answers again.");
        heard = true;
        this.#lost = false;
        this.#lastEventId = lastEventId;
        onEvent(event);
        if (isFinalPhase(event.migration.phase)) return { ended: event.migration };
      }
      // Ended in order: the agent stops, or it has no more to tell of a migration that is over.
      const migration = await api.migration(id);
      if (isFinalPhase(migration.phase)) return { ended: migration };
      return { lost: new UnreachableError(api.url, "it is stopping"), heard };
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof UnreachableError) return { lost: error, heard };
      throw error instanceof ProblemError ? this.#explained(error) : error;
    }
  }

  /** Agents keep migrations for as long as they run. */
  #explained(error: ProblemError): CliError {
    if (error.detail.code !== "migration-not-found" || this.#lastEventId === null) return error;
    const text = `${error.message}\nThe agent was restarted. Where the guest is: vmferry guest list`;
    return new CliError(text, error.detail, { cause: error });
  }
}

function givenUp({ id }: FollowOptions, lost: UnreachableError): CliError {
  const text = `${lost.message}\nThe migration may well go on. To follow it again: vmferry watch ${id}`;
  return new CliError(text, { code: "unreachable", exitCode: EXIT_CODE.unreachable });
}
