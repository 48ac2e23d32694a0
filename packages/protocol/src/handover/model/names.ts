import { assert } from "@vmferry/core";

/** Small numbers for values, so that a world is a row of them. Equal values have one number. */
export class Names<T> {
  readonly #ids = new Map<string, number>();
  readonly #values: T[] = [];
  readonly #countMax: number;

  constructor(countMax: number) {
    this.#countMax = countMax;
  }

  get size(): number {
    return this.#values.length;
  }

  idOf(value: T): number {
    const key = JSON.stringify(value);
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    assert(this.#values.length < this.#countMax, "a world has room for the number of every value");
    const id = this.#values.push(value) - 1;
    this.#ids.set(key, id);
    return id;
  }

  at(id: number): T {
    return this.#values[id]!;
  }
}
