// A migration that this command has started and follows. Ctrl-C asks the agent to cancel, and the
// following goes on, for cancelling takes its time and may come too late; a second Ctrl-C leaves
// the migration alone.

import { setTimeout as delay } from "node:timers/promises";
import type { Migration, MigrationEvent } from "../api/migration.ts";
import { ProblemError } from "../api/problem-error.ts";
import { UnreachableError } from "../api/unreachable-error.ts";
import { messageOf } from "../cli-error.ts";
import { EXIT_CODE, type ExitCode } from "../exit-code.ts";
import { followMigration } from "../follow/follow-migration.ts";
import type { FollowView } from "../follow/follow-view.ts";
import type { CommandContext } from "../command-context.ts";
import { endOfMigration } from "./end-of-migration.ts";

/** How long leaving waits for the agent to take note of a cancel. */
const CANCEL_MS_MAX = 1000;

export class FollowedMigration {
  readonly #context: CommandContext;
  readonly #view: FollowView;
  readonly #detaching = new AbortController();
  readonly #leaving = new AbortController();
  #id: string | null = null;
  #interrupts = 0;
  /** Asked for by Ctrl-C, and not known to the agent yet. */
  #cancelDue = false;
  #cancelling = Promise.resolve();

  constructor(context: CommandContext, view: FollowView) {
    this.#context = context;
    this.#view = view;
  }

  async run(start: (signal: AbortSignal) => Promise<Migration>): Promise<ExitCode> {
    const { api } = this.#context;
    const stopListening = this.#context.onInterrupt(() => {
      this.#interrupted();
    });
    const { signal } = this.#detaching;
    const onEvent = (event: MigrationEvent): void => {
      this.#view.onEvent(event);
      this.#cancelWhereDue();
    };
    try {
      const { id } = await start(signal);
      this.#id = id;
      this.#cancelWhereDue();
      const migration = await followMigration({ api, id, signal, ...this.#view, onEvent });
      return await endOfMigration({ api, view: this.#view }, migration);
    } catch (error) {
      if (!signal.aborted) throw error;
      // Both Ctrl-C may have come at once: what was asked for first still goes out.
      await Promise.race([this.#cancelling, delay(CANCEL_MS_MAX, undefined, { ref: false })]);
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
    this.#interrupts += 1;
    if (this.#interrupts > 1) {
      this.#detaching.abort();
      return;
    }
    this.#cancelDue = true;
    this.#view.onNotice("Asking the agent to cancel. Ctrl-C again leaves the migration alone.");
    this.#cancelWhereDue();
  }

  #cancelWhereDue(): void {
    if (!this.#cancelDue || this.#id === null) return;
    this.#cancelDue = false;
    this.#cancelling = this.#cancel(this.#id);
  }

  /** What the cancelling comes to is seen in the events. */
  async #cancel(id: string): Promise<void> {
    try {
      await this.#context.api.cancelMigration(id, this.#leaving.signal);
    } catch (error) {
      if (this.#leaving.signal.aborted) return;
      if (error instanceof UnreachableError) {
        this.#cancelDue = true;
        this.#view.onNotice("The agent does not answer; it is asked to cancel as soon as it does.");
        return;
      }
      const tooLate = error instanceof ProblemError && error.problem.code === "past-hand-over";
      const refusal = tooLate ? "It cannot be cancelled any more" : "It cannot be cancelled";
      this.#view.onNotice(`${refusal}: ${messageOf(error)}`);
    }
  }

  #detachedText(): string {
    return this.#id === null
      ? "Not waited for: the agent may or may not have begun. To see: vmferry list"
      : `No longer followed. To follow it again: vmferry watch ${this.#id}`;
  }
}
