/** Units of a lazy disk that become present just now, each by one operation. */
import type { BlockError } from "@vmferry/block";
import { Deferred } from "@vmferry/core";

export interface Fill {
  /** `source`: it was asked for. `guest`: a write that covers it. */
  readonly by: "source" | "guest";
  readonly done: Promise<void>;
  readonly sinceMs: number;
  /** The guest waits for it. */
  readonly urgent: boolean;
  /** Its content is on its way to the image. */
  readonly placing: boolean;
}

interface OpenFill extends Omit<Fill, "done"> {
  readonly end: Deferred;
  readonly done: Promise<void>;
  urgent: boolean;
  placing: boolean;
}

export class UnitFills {
  readonly #fills = new Map<number, OpenFill>();
  #pulled = 0;

  get size(): number {
    return this.#fills.size;
  }

  /** Those that nobody waits for. */
  get pulled(): number {
    return this.#pulled;
  }

  get(unit: number): Fill | undefined {
    return this.#fills.get(unit);
  }

  begin(unit: number, { by, urgent, sinceMs }: Pick<Fill, "by" | "urgent" | "sinceMs">): Fill {
    const end = new Deferred();
    const fill = { by, urgent, sinceMs, end, done: end.promise, placing: by === "guest" };
    this.#fills.set(unit, fill);
    if (!urgent) this.#pulled += 1;
    return fill;
  }

  /** The guest waits for it from now on. */
  hurry(unit: number): void {
    const fill = this.#fills.get(unit);
    if (fill === undefined || fill.urgent) return;
    fill.urgent = true;
    this.#pulled -= 1;
  }

  place(unit: number): void {
    const fill = this.#fills.get(unit);
    if (fill !== undefined) fill.placing = true;
  }

  /** It has come to its end, and whoever waits looks again. */
  release(unit: number): void {
    this.#take(unit)?.end.resolve();
  }

  /** The unit stays missing, and whoever waits fails. */
  lose(unit: number, error: BlockError): void {
    this.#take(unit)?.end.reject(error);
  }

  /** Every unit that was asked for and whose content has not come. */
  loseAsked(error: BlockError): void {
    for (const [unit, { by, placing }] of this.#fills) {
      if (by === "source" && !placing) this.lose(unit, error);
    }
  }

  /** Resolves when all that are under way have come to their end, however. */
  async idle(): Promise<void> {
    await Promise.allSettled([...this.#fills.values()].map(({ done }) => done));
  }

  #take(unit: number): OpenFill | undefined {
    const fill = this.#fills.get(unit);
    this.#fills.delete(unit);
    if (fill?.urgent === false) this.#pulled -= 1;
    return fill;
  }
}
