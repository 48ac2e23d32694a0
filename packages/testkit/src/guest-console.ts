// Follows the serial log of one guest while QEMU writes it.
//
// The log is read synchronously from a short timer: a read from the page cache takes microseconds,
// whereas a promise would wait its turn in the thread pool and blur the times. Memory is bounded:
// of each kind only the newest are kept.

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { AgentError, Deferred, type Clock } from "@vmferry/core";
import { parseConsoleLine, type GuestCounters, type GuestLatency } from "./console-line.ts";
import type { ConsoleLine } from "./judge-hand-over.ts";

const POLL_MS = 2;
const LINES_MAX = 20_000;
const REPORTS_MAX = 2_000;
const FAULTS_MAX = 200;
const LINE_BYTES_MAX = 65_536;
const LINES_IN_ERROR = 12;

export interface GuestReport extends GuestCounters, GuestLatency {
  /** On the host's monotonic clock. */
  readonly seenAtMs: number;
}

export interface SignOfLife {
  readonly sequence: number;
  readonly seenAtMs: number;
}

export class GuestConsoleError extends AgentError<
  | {
      readonly code: "guest-console-timeout";
      readonly path: string;
      readonly timeoutMs: number;
      readonly lastLines: readonly string[];
    }
  | { readonly code: "guest-console-closed"; readonly path: string }
> {}

interface Waiter {
  readonly predicate: (console: GuestConsole) => boolean;
  readonly deadlineMs: number;
  readonly timeoutMs: number;
  readonly settled: Deferred;
}

export class GuestConsole {
  readonly path: string;
  readonly #clock: Clock;
  #cancelTimer: () => void;
  readonly #chunk = Buffer.alloc(65_536);
  #file: number | null = null;
  #closed = false;
  #offsetBytes = 0;
  #begun = "";
  #begunAtMs = 0;
  #waiters: Waiter[] = [];
  #ready: ReadonlyMap<string, string> | null = null;
  #latestSign: SignOfLife | null = null;
  readonly #lines = new Newest<ConsoleLine>(LINES_MAX);
  readonly #reports = new Newest<GuestReport>(REPORTS_MAX);
  readonly #errors = new Newest<string>(FAULTS_MAX);
  readonly #complaints = new Newest<string>(FAULTS_MAX);

  private constructor(path: string, clock: Clock) {
    this.path = path;
    this.#clock = clock;
    this.#cancelTimer = this.#pollSoon();
  }

  /** The log need not be there yet; a log that QEMU starts afresh is followed from its start. */
  static open(path: string, options: { readonly clock: Clock }): GuestConsole {
    return new GuestConsole(path, options.clock);
  }

  /** Reads what is left; what was read remains to be asked for. */
  close(): void {
    if (this.#closed) return;
    this.poll();
    this.#closed = true;
    this.#cancelTimer();
    if (this.#file !== null) closeSync(this.#file);
    this.#file = null;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const { settled } of waiters) {
      settled.reject(this.#noLongerFollowed());
    }
  }

  /** What the ready line said, null before it came. */
  get ready(): ReadonlyMap<string, string> | null {
    return this.#ready;
  }

  get latestSign(): SignOfLife | null {
    return this.#latestSign;
  }

  get reports(): readonly GuestReport[] {
    return this.#reports.items();
  }

  get latestReport(): GuestReport | null {
    return this.#reports.last;
  }

  /** The workload's `VF ERROR` lines. */
  get errors(): readonly string[] {
    return this.#errors.items();
  }

  /** Lines in which the guest's kernel says that something is wrong. */
  get kernelComplaints(): readonly string[] {
    return this.#complaints.items();
  }

  /** The newest lines, and at the end the one that has only begun, if there is one. */
  get lines(): readonly ConsoleLine[] {
    const lines = this.#lines.items();
    if (this.#begun === "") return lines;
    return [...lines, { text: this.#begun, seenAtMs: this.#begunAtMs, complete: false }];
  }

  /** Waits until the predicate holds; it is asked again whenever lines have come. */
  async waitFor(
    predicate: (console: GuestConsole) => boolean,
    { timeoutMs }: { readonly timeoutMs: number },
  ): Promise<void> {
    if (predicate(this)) return;
    if (this.#closed) throw this.#noLongerFollowed();
    const settled = new Deferred();
    const deadlineMs = this.#clock.nowMs() + timeoutMs;
    this.#waiters.push({ predicate, deadlineMs, timeoutMs, settled });
    await settled.promise;
  }

  /** Reads what has been written since the last time; the timer does this all along. */
  poll(): void {
    if (this.#closed) return;
    const before = this.#lines.total;
    this.#readNewBytes();
    this.#settleWaiters(this.#lines.total > before);
  }

  #pollSoon(): () => void {
    return this.#clock.after(POLL_MS, () => {
      this.#cancelTimer = this.#pollSoon();
      this.poll();
    });
  }

  #readNewBytes(): void {
    const file = this.#openFile();
    if (file === null) return;
    if (fstatSync(file).size < this.#offsetBytes) {
      this.#offsetBytes = 0;
      this.#begun = "";
    }
    for (;;) {
      const bytes = readSync(file, this.#chunk, 0, this.#chunk.length, this.#offsetBytes);
      if (bytes === 0) return;
      this.#offsetBytes += bytes;
      // Not UTF-8: what a crashing guest writes must not be cut within a character.
      this.#takeText(this.#chunk.toString("latin1", 0, bytes), this.#clock.nowMs());
    }
  }

  #openFile(): number | null {
    try {
      this.#file ??= openSync(this.path, "r");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
    return this.#file;
  }

  #takeText(text: string, seenAtMs: number): void {
    const lines = (this.#begun + text).split("\n");
    this.#begun = lines.pop() ?? "";
    this.#begunAtMs = seenAtMs;
    for (const line of lines) this.#takeLine(line.replace(/\r+$/, ""), seenAtMs);
    if (this.#begun.length > LINE_BYTES_MAX) this.#begun = "";
  }

  #takeLine(text: string, seenAtMs: number): void {
    this.#lines.add({ text, seenAtMs, complete: true });
    const message = parseConsoleLine(text);
    if (message.kind === "sign") this.#latestSign = { sequence: message.sequence, seenAtMs };
    if (message.kind === "report") {
      this.#reports.add({ ...message.counters, ...message.latency, seenAtMs });
    }
    if (message.kind === "ready") this.#ready = message.parameters;
    if (message.kind === "error") this.#errors.add(text);
    if (message.kind === "complaint") this.#complaints.add(text);
  }

  #settleWaiters(linesCame: boolean): void {
    const nowMs = this.#clock.nowMs();
    this.#waiters = this.#waiters.filter((waiter) => !this.#settle(waiter, linesCame, nowMs));
  }

  /** True when the waiter waits no more. */
  #settle(waiter: Waiter, linesCame: boolean, nowMs: number): boolean {
    try {
      if (linesCame && waiter.predicate(this)) {
        waiter.settled.resolve();
        return true;
      }
    } catch (error) {
      waiter.settled.reject(error);
      return true;
    }
    if (nowMs < waiter.deadlineMs) return false;
    waiter.settled.reject(this.#timeout(waiter.timeoutMs));
    return true;
  }

  #noLongerFollowed(): GuestConsoleError {
    const detail = { code: "guest-console-closed", path: this.path } as const;
    return new GuestConsoleError(`${this.path} is not followed any more`, detail);
  }

  #timeout(timeoutMs: number): GuestConsoleError {
    const faults = [...this.errors, ...this.kernelComplaints].slice(0, LINES_IN_ERROR);
    const lastLines = [...faults, ...this.lines.slice(-LINES_IN_ERROR).map((line) => line.text)];
    const message = `not seen on ${this.path} in ${timeoutMs} ms; it says:\n${lastLines.join("\n")}`;
    const { path } = this;
    const detail = { code: "guest-console-timeout", path, timeoutMs, lastLines } as const;
    return new GuestConsoleError(message, detail);
  }
}

/** The newest `limit` items, or a few more: old ones are dropped by the half, which is cheap. */
class Newest<T> {
  readonly #limit: number;
  #items: T[] = [];
  #total = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get total(): number {
    return this.#total;
  }

  get last(): T | null {
    return this.#items.at(-1) ?? null;
  }

  add(item: T): void {
    this.#total += 1;
    this.#items.push(item);
    if (this.#items.length >= this.#limit * 2) this.#items = this.#items.slice(-this.#limit);
  }

  items(): readonly T[] {
    return this.#items.slice(-this.#limit);
  }
}
