/** The migration object of the dest agent, fed by the receiver's counters. */
import type { Clock } from "@vmferry/core";
import {
  newMigrationObject,
  type Failure,
  type MigrationPatch,
  type MigrationStore,
} from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import type { RamReceiver } from "../ram/ram-receiver.ts";

const { PAGE_BYTES } = limits;
const TICK_MS = 500;
/** In their order. */
const PHASES = ["pre-copy", "stunned", "device-state", "handing-over", "completing"] as const;

export class ArrivalReport {
  readonly #store: MigrationStore;
  readonly #id: string;
  readonly #clock: Clock;
  #receiver: RamReceiver | null = null;
  #startedMs = 0;
  /** Index of the last phase entered. */
  #entered = -1;
  #ramDigest: string | null = null;
  #cancelTick: () => void = () => undefined;

  constructor(store: MigrationStore, id: string, clock: Clock) {
    this.#store = store;
    this.#id = id;
    this.#clock = clock;
  }

  begin(guest: string, receiver: RamReceiver): void {
    this.#receiver = receiver;
    this.#startedMs = this.#clock.nowMs();
    this.#store.create({
      ...newMigrationObject({
        id: this.#id,
        role: "dest",
        guest,
        destination: "here",
        startedAt: this.#clock.date(),
      }),
      // The source cancels; the dest is told.
      mayCancel: false,
    });
    this.#phase("pre-copy");
    this.#tick();
  }

  stunned(): void {
    this.#phase("stunned");
  }

  ramEnded(ramDigest: string): void {
    this.#ramDigest = ramDigest;
    // The end of RAM may overtake the message that announces the stun.
    this.#phase("stunned");
    this.#phase("device-state");
  }

  prepared(): void {
    this.#phase("handing-over");
  }

  completed(): void {
    this.#cancelTick();
    const { wireBytes } = this.#receiver!.counters;
    const totalMs = Math.round(this.#clock.nowMs() - this.#startedMs);
    const result = { downtimeMs: null, totalMs, wireBytes, ramDigest: this.#ramDigest };
    this.#phase("completing");
    this.#store.finish(
      this.#id,
      { phase: "completed", result: { ...result, diskDigests: {} } },
      this.#counters(),
    );
    this.#receiver = null;
  }

  failed(error: Failure): void {
    this.#cancelTick();
    const phase = error.code === "cancelled" ? "cancelled" : "failed";
    this.#store.finish(this.#id, { phase, error }, this.#counters());
    this.#receiver = null;
  }

  /** Phases never go back. */
  #phase(phase: (typeof PHASES)[number]): void {
    const entered = this.#entered;
    if (PHASES.indexOf(phase) <= entered) return;
    this.#entered = PHASES.indexOf(phase);
    this.#store.phase(this.#id, phase);
  }

  #tick(): void {
    this.#cancelTick = this.#clock.after(TICK_MS, () => {
      this.#store.update(this.#id, () => this.#counters());
      this.#tick();
    });
  }

  #counters(): MigrationPatch {
    const { counters, totalBytes } = this.#receiver!;
    const object = this.#store.get(this.#id);
    return {
      ram: {
        ...object.ram,
        totalBytes,
        sentBytes: counters.fedPages * PAGE_BYTES,
        zeroBytes: counters.zeroPages * PAGE_BYTES,
      },
      wire: { ...object.wire, bytes: counters.wireBytes },
    };
  }
}
