/**
 * A guest that was handed over stands still here, whoever starts it: it is stopped until it was seen
 * to stand still. What it did meanwhile is nobody's.
 */
import { growingDelay, messageOf, sleep, type Clock } from "@vmferry/core";
import type { Guest, Logger } from "@vmferry/agent";
import type { SourceQemu } from "../adapters/source-qemu.ts";

const AGAIN = { msMin: 100, msMax: 5000 };

export interface StandstillPorts {
  readonly guest: Pick<Guest, "alive">;
  readonly qemu: Pick<SourceQemu, "halt">;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The guest is not to run here. */
  readonly isDue: () => boolean;
  /** Resolves when the agent stops. */
  readonly stopped: Promise<unknown>;
}

export class Standstill {
  readonly #ports: StandstillPorts;
  #isRepeating = false;

  constructor(ports: StandstillPorts) {
    this.#ports = ports;
  }

  /** Never rejects. Resolves after the first attempt; where that failed others follow. */
  async keep(): Promise<void> {
    if (await this.#halt()) return;
    if (!this.#isRepeating) void this.#repeat();
  }

  async #repeat(): Promise<void> {
    const { clock, stopped } = this.#ports;
    this.#isRepeating = true;
    let isStopping = false;
    const nextDelayMs = growingDelay(AGAIN);
    const stop = stopped.then(() => true);
    do {
      isStopping = await Promise.race([sleep(clock, nextDelayMs()).then(() => false), stop]);
    } while (!isStopping && !(await this.#halt()));
    this.#isRepeating = false;
  }

  /** Whether nothing is left to do. */
  async #halt(): Promise<boolean> {
    const { guest, qemu, logger, isDue } = this.#ports;
    // In the same turn as the command: a `cont` that is due comes behind it.
    if (!isDue()) return true;
    try {
      await qemu.halt();
      return true;
    } catch (error) {
      logger.error({ reason: messageOf(error) }, "a guest that was handed over is not stopped yet");
      return !guest.alive;
    }
  }
}
