/** The migration commands of the source's QEMU, and how to see its guest running again. */
import { AgentError, type Clock } from "@vmferry/core";
import { seenQemu } from "@vmferry/protocol";
import {
  migrationStatusOf,
  type QmpClient,
  type QmpEvent,
  type QueryMigrate,
  type QueryStatus,
} from "@vmferry/qemu";

const UNLIMITED_BYTES_PER_SECOND = 2 ** 50;
/** QEMU's own defaults. */
const THROTTLE_PERCENT_FIRST = 20;
const THROTTLE_PERCENT_MAX = 99;
/** Long enough that a guest which keeps up with a link of 1 Gbit/s changes a page in thirty. */
const DIRTY_RATE_MS = 300;
const DIRTY_RATE_SAMPLES_PER_GIB = 1024;
const RESUME_MS_MAX = 10_000;
const POLL_MS = 2;

export class SourceQemuError extends AgentError<{
  readonly code: "source-qemu-failed" | "source-qemu-died";
}> {}

/** Of the time in which a vCPU may not run; QEMU begins with the first, and adds some each time. */
export interface ThrottlePercent {
  readonly first: number;
  readonly max: number;
}

export class SourceQemu {
  readonly #qmp: QmpClient;
  readonly #clock: Clock;

  constructor(qmp: QmpClient, clock: Clock) {
    this.#qmp = qmp;
    this.#clock = clock;
  }

  async prepare(options: { readonly autoConverge: boolean }): Promise<void> {
    await this.#qmp.execute("migrate-set-capabilities", {
      capabilities: [
        { capability: "return-path", state: true },
        { capability: "events", state: true },
        { capability: "pause-before-switchover", state: true },
        { capability: "auto-converge", state: options.autoConverge },
      ],
    });
    await this.#qmp.execute("migrate-set-parameters", {
      "max-bandwidth": UNLIMITED_BYTES_PER_SECOND,
      // Auto-converge only acts when `throttle` lowers this.
      "throttle-trigger-threshold": 100,
      "max-cpu-throttle": THROTTLE_PERCENT_MAX,
    });
    await this.setDirtyBytesMax(0);
  }

  async migrate(uri: string): Promise<void> {
    await this.#qmp.execute("migrate", { uri });
  }

  /**
   * QEMU stuns when less than this is dirty. From 8.2 on a threshold in bytes can be set as a
   * bandwidth times one second; an older QEMU multiplies with the bandwidth that it measured.
   */
  async setDirtyBytesMax(bytes: number): Promise<void> {
    if (this.#hasSwitchoverBandwidth) {
      await this.#qmp.execute("migrate-set-parameters", {
        "downtime-limit": 1000,
        // 0 would mean "measure it".
        "avail-switchover-bandwidth": Math.max(1000, Math.min(bytes, 2 ** 50)),
      });
      return;
    }
    const { ram } = await this.query();
    const bytesPerMs = ((ram?.mbps ?? 0) * 125_000) / 1000;
    const limitMs = bytesPerMs === 0 ? 0 : Math.min(2_000_000, Math.floor(bytes / bytesPerMs));
    await this.#qmp.execute("migrate-set-parameters", { "downtime-limit": limitMs });
  }

  /** Lets QEMU slow the guest down, more and more, until it dirties less than travels. */
  async throttle({
    first = THROTTLE_PERCENT_FIRST,
    max = THROTTLE_PERCENT_MAX,
  }: Partial<ThrottlePercent> = {}): Promise<void> {
    await this.#qmp.execute("migrate-set-parameters", {
      "throttle-trigger-threshold": 1,
      "cpu-throttle-initial": first,
      "max-cpu-throttle": max,
    });
  }

  /** False where this QEMU cannot: before 8.2 it measures in whole seconds. */
  async measureDirtyRate(): Promise<boolean> {
    if (!this.#hasSwitchoverBandwidth) return false;
    await this.#qmp.execute("calc-dirty-rate", {
      "calc-time": DIRTY_RATE_MS,
      "calc-time-unit": "millisecond",
      "sample-pages": DIRTY_RATE_SAMPLES_PER_GIB,
      mode: "page-sampling",
    });
    return true;
  }

  /** Null until it is measured. */
  async dirtyBytesPerSecond(): Promise<number | null> {
    return (await this.#qmp.execute("query-dirty-rate")).bytesPerSecond;
  }

  query(): Promise<QueryMigrate> {
    return this.#qmp.execute("query-migrate");
  }

  async continueAtSwitchover(): Promise<void> {
    await this.#qmp.execute("migrate-continue", { state: "pre-switchover" });
  }

  onEvent(listener: (event: QmpEvent) => void): () => void {
    return this.#qmp.onEvent(listener);
  }

  get closed(): Promise<unknown> {
    return this.#qmp.closed;
  }

  /** Waits for `completed` and `postmigrate`: after that only a `cont` can start the guest. */
  async postmigrate(): Promise<void> {
    for (;;) {
      const { status, errorDescription } = await this.query();
      if (status === "failed" || status === "cancelled") {
        throw failed(`QEMU ended the migration as ${status}: ${errorDescription ?? "no reason"}`);
      }
      const state = await this.#qmp.execute("query-status");
      if (status === "completed" && state.status === "postmigrate") return;
      // The attempt was given up meanwhile: that state does not come any more.
      if (status === "completed" && state.running) throw failed("the guest runs again");
      await this.#event((event) => migrationStatusOf(event) !== null, POLL_MS);
    }
  }

  /**
   * Brings the guest back after a migration that ended before the hand-over. The migration socket
   * is closed already: that alone makes QEMU resume in most states.
   */
  async resume(): Promise<void> {
    const mayStart = ["paused", "postmigrate"];
    const state = await this.#behindMigration("run again", (seen, ended) => {
      // One that stands still for reasons of its own does so wherever it is: a failed disk, a panic.
      if (seen.running || (ended && seenQemu(seen) === "halted")) return true;
      return ended && mayStart.includes(seen.status);
    });
    if (mayStart.includes(state.status)) await this.#qmp.execute("cont");
  }

  /**
   * As `resume`, for a guest that is to stay stopped: a migration that ends only now would start it
   * behind a `stop`.
   */
  async keepStopped(): Promise<void> {
    await this.halt();
    await this.#behindMigration("come to its end", ({ status }, ended) => {
      return ended && status !== "finish-migrate";
    });
    await this.halt();
  }

  /** The vCPUs were seen to stand still when this resolves, if they did not before. */
  async halt(): Promise<void> {
    await this.#qmp.execute("stop");
    const { running, status } = await this.#qmp.execute("query-status");
    if (running) throw failed(`the guest runs on after "stop": it is ${status}`);
  }

  /**
   * Lets the guest go on that was stopped by an I/O error, while its requests went through the
   * agent. They are sent again: if it is the image that fails, the guest is stopped again.
   */
  async retryFailedIo(): Promise<void> {
    const { status } = await this.#qmp.execute("query-status");
    if (status === "io-error") await this.#qmp.execute("cont");
  }

  /** Starts the guest after a hand-over that the dest refused. */
  async cont(): Promise<void> {
    await this.#qmp.execute("cont");
  }

  /** Ends the migration, if it has not, and waits for what becomes of the guest. */
  async #behindMigration(
    what: string,
    isSettled: (state: QueryStatus, ended: boolean) => boolean,
  ): Promise<QueryStatus> {
    const deadlineMs = this.#clock.nowMs() + RESUME_MS_MAX;
    let cancelled = false;
    while (this.#clock.nowMs() < deadlineMs) {
      const { status } = await this.query();
      const ended = status === "none" || ["failed", "cancelled", "completed"].includes(status);
      if (!ended && !cancelled) {
        await this.#qmp.execute("migrate_cancel");
        cancelled = true;
      }
      const state = await this.#qmp.execute("query-status");
      if (isSettled(state, ended)) return state;
      await this.#event(() => true, POLL_MS);
    }
    throw failed(`the guest did not ${what} in time`);
  }

  get #hasSwitchoverBandwidth(): boolean {
    const { major, minor } = this.#qmp.version;
    return major > 8 || (major === 8 && minor >= 2);
  }

  /** Sleeps until the event, or for `timeoutMs`: QEMU sends none for some of its steps. */
  async #event(predicate: (event: QmpEvent) => boolean, timeoutMs: number): Promise<void> {
    try {
      await this.#qmp.waitFor(predicate, { timeoutMs });
    } catch {
      // The time is up; the caller looks again.
    }
  }
}

function failed(text: string): SourceQemuError {
  return new SourceQemuError(text, { code: "source-qemu-failed" });
}
