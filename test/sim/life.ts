/**
 * One life of an agent, from its start to its crash. Everything that an agent can do to the world
 * goes through its life: after its death nothing of it has an effect any more, whatever its
 * abandoned objects still try.
 */
import type { Clock } from "@vmferry/core";
import type { Scheduler } from "./scheduler.ts";

const EPOCH_MS = Date.parse("2030-01-01T00:00:00Z");

export type Side = "source" | "dest";

export interface LifeOptions {
  readonly side: Side;
  readonly scheduler: Scheduler;
  /** Called at each act on the world, before it: the place where an agent may be killed. */
  readonly onPort: (life: Life, name: string) => void;
}

export class Life {
  readonly side: Side;
  readonly clock: Clock;
  readonly #options: LifeOptions;
  readonly #mourners: (() => void)[] = [];
  #isDead = false;
  #timers = 0;
  /** What came while the process stood still, in order; null while it does not. */
  #frozen: (() => void)[] | null = null;

  constructor(options: LifeOptions) {
    const { side, scheduler } = options;
    this.side = side;
    this.#options = options;
    this.clock = {
      nowMs: () => scheduler.nowMs,
      date: () => new Date(EPOCH_MS + Math.floor(scheduler.nowMs)),
      after: (ms, callback) => this.#timer(ms, callback),
    };
  }

  get isDead(): boolean {
    return this.#isDead;
  }

  /** What this agent waits for with its clock. */
  get timers(): number {
    return this.#timers;
  }

  /** False when it died here, or before: then the act does not happen. */
  port(name: string): boolean {
    if (this.#isDead) return false;
    this.#options.onPort(this, name);
    // It may have died in the call.
    return !(this as { readonly isDead: boolean }).isDead;
  }

  /** Never settles in a life that has ended. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.later(ms, resolve);
    });
  }

  /** Of the world's doing, but heard by this life alone. */
  later(ms: number, run: () => void): void {
    this.#options.scheduler.after(ms, () => {
      this.hear(run);
    });
  }

  /** Something reaches the process: at once, after it has stood still, or never. */
  hear(run: () => void): void {
    if (this.#isDead) return;
    if (this.#frozen === null) run();
    else this.#frozen.push(run);
  }

  /** SIGSTOP, and SIGCONT after a while: then everything is there at once. */
  freeze(ms: number): void {
    if (this.#frozen !== null) return;
    this.#frozen = [];
    this.#options.scheduler.after(ms, () => {
      this.#thaw();
    });
  }

  /** What the kernel does when the process is gone. */
  onDeath(mourner: () => void): void {
    if (this.#isDead) mourner();
    else this.#mourners.push(mourner);
  }

  die(): void {
    if (this.#isDead) return;
    this.#isDead = true;
    for (const mourner of this.#mourners.splice(0)) mourner();
  }

  #thaw(): void {
    const next = this.#frozen?.shift();
    if (next === undefined || this.#isDead) {
      this.#frozen = null;
      return;
    }
    next();
    this.#options.scheduler.after(0, () => {
      this.#thaw();
    });
  }

  #timer(ms: number, callback: () => void): () => void {
    let isWaiting = true;
    this.#timers += 1;
    const over = (): boolean => {
      if (!isWaiting) return false;
      isWaiting = false;
      this.#timers -= 1;
      return true;
    };
    const cancel = this.#options.scheduler.after(ms, () => {
      this.hear(() => {
        if (over()) callback();
      });
    });
    return () => {
      if (over()) cancel();
    };
  }
}
