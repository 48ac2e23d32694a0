/**
 * Makes what was acknowledged survive a crash of the host: image first, map second. The map's half
 * is left out where no write has touched a unit that a crash would make missing.
 */
import type { BlockDevice, PresentMap } from "@vmferry/block";
import type { UnitRun } from "@vmferry/protocol";

export class SettledUnits {
  readonly #image: BlockDevice;
  readonly #map: PresentMap;
  /** At first: an earlier life of the agent may have acknowledged writes that are not durable. */
  #unsafe = true;
  #last: Promise<void> = Promise.resolve();

  constructor(image: BlockDevice, map: PresentMap) {
    this.#image = image;
    this.#map = map;
  }

  /** A write of the guest to these units is about to be acknowledged. */
  written({ first, count }: UnitRun): void {
    for (let unit = first; unit < first + count && !this.#unsafe; unit++) {
      this.#unsafe = !this.#map.isDurable(unit);
    }
  }

  /** What was acknowledged before the call is durable when this resolves. */
  async flush(): Promise<void> {
    if (this.#unsafe) return this.settle();
    // One that is under way may be what makes an acknowledged write safe.
    const last = this.#last;
    await this.#image.flush();
    await last;
  }

  /** As `flush`, and so is everything that was fetched. */
  settle(): Promise<void> {
    const before = this.#last;
    this.#unsafe = false;
    const settled = this.#settleAfter(before);
    // Whoever flushes next awaits it.
    settled.catch(() => undefined);
    this.#last = settled;
    return settled;
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    await this.#last.catch(() => undefined);
  }

  async #settleAfter(before: Promise<void>): Promise<void> {
    const point = this.#map.point();
    await this.#image.flush();
    await before;
    await this.#map.settle(point);
  }
}
