/**
 * What a hand-over does with its guest: SIGKILL and `cont`, each for as long as it takes or until the
 * agent stops. Then it is left as the journal has it, and nothing is said of it that was not seen: the
 * agent's next life goes on.
 */
import { Deferred } from "@vmferry/core";
import type { DestHandOverPorts } from "./dest-hand-over-ports.ts";
import { discardSurely } from "./discard-surely.ts";
import type { Stuck } from "./doubt-text.ts";
import type { GuestHolding } from "./guest-holding.ts";
import { agentStopped } from "./session-errors.ts";
import { startGuest, type GuestStart } from "./start-guest.ts";

export interface GuestWorkOptions {
  /** `cont` was not sent yet, in this life or an earlier one. */
  readonly neverStarted: boolean;
  /** `stuckBecause` is another. */
  readonly onStuck: () => void;
}

export class GuestWork {
  readonly #ports: Pick<DestHandOverPorts, "holding" | "clock" | "logger">;
  readonly #onStuck: () => void;
  readonly #stopping = new AbortController();
  readonly #left = new Deferred();
  #stuckBecause: Stuck | null = null;
  #neverStarted: boolean;

  constructor(
    ports: Pick<DestHandOverPorts, "holding" | "clock" | "logger">,
    { neverStarted, onStuck }: GuestWorkOptions,
  ) {
    this.#ports = ports;
    this.#neverStarted = neverStarted;
    this.#onStuck = onStuck;
  }

  get neverStarted(): boolean {
    return this.#neverStarted;
  }

  /** Why what is due is tried again and again. */
  get stuckBecause(): Stuck | null {
    return this.#stuckBecause;
  }

  get stopping(): AbortSignal {
    return this.#stopping.signal;
  }

  /** Resolves when something that was due is left because of `stop`. */
  get left(): Promise<void> {
    return this.#left.promise;
  }

  get isLeft(): boolean {
    return this.#left.settled;
  }

  stop(): void {
    this.#stopping.abort();
  }

  stuck(stuck: Stuck): void {
    const { at, reason } = this.#stuckBecause ?? {};
    if (at === stuck.at && reason === stuck.reason) return;
    this.#stuckBecause = stuck;
    this.#onStuck();
  }

  goesOn(): void {
    this.#stuckBecause = null;
  }

  /** Rejects where QEMU may be there: then it is left. */
  async discard(at: "end" | "clear"): Promise<void> {
    const outcome = await discardSurely(this.#ports.holding(), {
      ...this.#ports,
      signal: this.stopping,
      onStuck: (reason) => {
        this.stuck({ at, reason });
      },
    });
    if (outcome === "left") {
      this.#leave("its QEMU may still be there");
      throw agentStopped();
    }
    this.#stuckBecause = null;
  }

  async start(held: GuestHolding, isRestarted: () => boolean): Promise<GuestStart> {
    const neverStarted = this.#neverStarted;
    const start = await startGuest(held, {
      ...this.#ports,
      isFinal: (attempt) => (neverStarted && attempt === 1) || isRestarted(),
      onStuck: (reason) => {
        held.inDoubt();
        this.stuck({ at: "start", reason });
      },
      signal: this.stopping,
    });
    this.#neverStarted = neverStarted && start.kind === "gone" && !start.wasTold;
    if (start.kind === "left") this.#leave("it was not seen running");
    else this.#stuckBecause = null;
    return start;
  }

  #leave(why: string): void {
    this.#ports.logger.warn({ why }, "the agent stops; the guest is left to its next life");
    this.#left.resolve();
  }
}
