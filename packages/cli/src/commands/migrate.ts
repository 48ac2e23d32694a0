// Starts a migration and follows it. Ctrl-C asks the agent to cancel, and the following goes on,
// for cancelling takes its time and may come too late; a second Ctrl-C leaves the migration alone.

import { setTimeout as delay } from "node:timers/promises";
import type { Migration, MigrationRequest } from "../api/migration.ts";
import { ProblemError } from "../api/problem-error.ts";
import { CliError, messageOf } from "../cli-error.ts";
import { EXIT_CODE, type ExitCode } from "../exit-code.ts";
import { followMigration } from "../follow/follow-migration.ts";
import { followView, type FollowView } from "../follow/follow-view.ts";
import type { CommandContext } from "../command-context.ts";
import { endOfMigration } from "./end-of-migration.ts";

/** How long leaving waits for the agent to take note of a cancel. */
const CANCEL_MS_MAX = 1000;

/** What the request's fields are called on the command line. */
const FLAG_OF_FIELD = new Map([
  ["guest", "GUEST"],
  ["destination", "DEST"],
  ["onStall", "--on-stall"],
  ["limits.downtimeMsMax", "--downtime"],
  ["limits.bandwidthBytesPerSecond", "--bandwidth"],
]);

export interface MigrateOptions {
  readonly detach?: boolean;
  readonly json?: boolean;
}

export async function migrate(
  context: CommandContext,
  request: MigrationRequest,
  { detach = false, json = false }: MigrateOptions,
): Promise<ExitCode> {
  if (!detach) return new FollowedMigration(context, followView(context, json)).run(request);
  const migration = await start(context, request);
  const text = json ? JSON.stringify(migration) : startedText(migration);
  context.stdout.write(`${text}\n`);
  return EXIT_CODE.ok;
}

function startedText({ id, guest, destination }: Migration): string {
  return `Migrating ${guest} to ${destination}: ${id}\nFollow it with: vmferry watch ${id}`;
}

async function start(
  { api }: CommandContext,
  request: MigrationRequest,
  signal?: AbortSignal,
): Promise<Migration> {
  try {
    return await api.startMigration(request, signal);
  } catch (error) {
    throw error instanceof ProblemError ? refusal(error) : error;
  }
}

/** An agent that refuses a migration has done nothing yet. */
function refusal(error: ProblemError): CliError {
  const { status, code, errors = [] } = error.problem;
  if (status === 400) {
    const fields = errors.map(
      ({ field, detail }) => `${FLAG_OF_FIELD.get(field) ?? field} ${detail}`,
    );
    const text = fields.length === 0 ? error.message : fields.join("\n");
    return new CliError(text, { code, exitCode: EXIT_CODE.usage }, { cause: error });
  }
  if (![404, 409, 422].includes(status)) return error;
  return new CliError(error.message, { code, exitCode: EXIT_CODE.refused }, { cause: error });
}

class FollowedMigration {
  readonly #context: CommandContext;
  readonly #view: FollowView;
  readonly #detaching = new AbortController();
  readonly #leaving = new AbortController();
  #id: string | null = null;
  #cancelWanted = false;
  #cancelled = Promise.resolve();

  constructor(context: CommandContext, view: FollowView) {
    this.#context = context;
    this.#view = view;
  }

  async run(request: MigrationRequest): Promise<ExitCode> {
    const { api } = this.#context;
    const stopListening = this.#context.onInterrupt(() => {
      this.#interrupted();
    });
    const { signal } = this.#detaching;
    try {
      const { id } = await start(this.#context, request, signal);
      this.#id = id;
      if (this.#cancelWanted) this.#cancelled = this.#cancel(id);
      const migration = await followMigration({ api, id, signal, ...this.#view });
      return await endOfMigration({ api, view: this.#view }, migration);
    } catch (error) {
      if (!signal.aborted) throw error;
      // Both Ctrl-C may have come at once: what was asked for first still goes out.
      await Promise.race([this.#cancelled, delay(CANCEL_MS_MAX, undefined, { ref: false })]);
      this.#view.close();
      this.#view.onNotice(this.#detachedText());
      return EXIT_CODE.interrupted;
    } finally {
      this.#leaving.abort();
      stopListening();
      this.#view.close();
    }
  }

  #interrupted(): void {
    if (this.#cancelWanted) {
      this.#detaching.abort();
      return;
    }
    this.#cancelWanted = true;
    this.#view.onNotice("Asking the agent to cancel. Ctrl-C again leaves the migration alone.");
    if (this.#id !== null) this.#cancelled = this.#cancel(this.#id);
  }

  /** What the cancelling comes to is seen in the events. */
  async #cancel(id: string): Promise<void> {
    try {
      await this.#context.api.cancelMigration(id, this.#leaving.signal);
    } catch (error) {
      if (this.#leaving.signal.aborted) return;
      this.#view.onNotice(`It cannot be cancelled: ${messageOf(error)}`);
    }
  }

  #detachedText(): string {
    return this.#id === null
      ? "Not waited for: the agent may or may not have begun. To see: vmferry list"
      : `No longer followed. To follow it again: vmferry watch ${this.#id}`;
  }
}
