/**
 * The disks that a guest of an earlier life has left: served as soon as they can be, for an image that
 * somebody writes to, or wrote to since, is not what the dest may have. Why they are not is told.
 */
import type { Logger } from "@vmferry/agent";
import { Deferred, messageOf, sleep, type Clock } from "@vmferry/core";
import type { DiskRest } from "../disk/disk-rest.ts";

const AGAIN_MS_MIN = 1000;
const AGAIN_MS_MAX = 30_000;

export type LeftDisksRest = Pick<DiskRest, "progress" | "setBandwidthLimit" | "close">;

export interface LeftDisksServingPorts {
  readonly leftDisks: { serve(): Promise<LeftDisksRest | null> };
  readonly clock: Clock;
  readonly logger: Logger;
  /** `rest` or `refusal` is another. */
  readonly onChange: () => void;
}

export class LeftDisksServing {
  readonly #ports: LeftDisksServingPorts;
  readonly #closing = new Deferred();
  #begun: Promise<void> | null = null;
  #rest: LeftDisksRest | null = null;
  #refusal: string | null = null;

  constructor(ports: LeftDisksServingPorts) {
    this.#ports = ports;
  }

  /** Null while nothing is served, be it that no disk follows. */
  get rest(): LeftDisksRest | null {
    return this.#rest;
  }

  /** Why disks are not served that the dest may ask for; null without any. */
  get refusal(): string | null {
    return this.#refusal;
  }

  /** Resolves after the first attempt; others follow where it failed. */
  async begin(): Promise<void> {
    if (this.#closing.settled) return;
    const first = new Deferred();
    this.#begun ??= this.#run(first);
    await Promise.race([first.promise, this.#begun]);
  }

  /** The images are the guest's again, or nobody's. What was served is still shown. */
  async close(): Promise<void> {
    this.#closing.resolve();
    await this.#begun;
    await this.#rest?.close();
  }

  async #run(first: Deferred): Promise<void> {
    const { leftDisks, clock, logger, onChange } = this.#ports;
    let delayMs = AGAIN_MS_MIN;
    while (!this.#closing.settled) {
      try {
        this.#rest = await leftDisks.serve();
        this.#refusal = null;
        onChange();
        return;
      } catch (error) {
        const refusal = messageOf(error);
        if (refusal !== this.#refusal) {
          logger.error({ err: error }, "disks that the dest may lack cannot be served");
          this.#refusal = refusal;
          onChange();
        }
      }
      first.resolve();
      await Promise.race([sleep(clock, delayMs), this.#closing.promise]);
      delayMs = Math.min(delayMs * 2, AGAIN_MS_MAX);
    }
  }
}
