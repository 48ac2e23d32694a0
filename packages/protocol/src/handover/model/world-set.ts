/** Every world that was seen, in the order in which it was: packed words and a hash table over them. */
import { packWorld, unpackWorld, WORLD_WORDS, type World } from "./world.ts";

const EMPTY = -1;

export class WorldSet {
  #words = new Uint32Array(WORLD_WORDS << 16);
  #table = new Int32Array(1 << 18).fill(EMPTY);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  at(index: number): World {
    return unpackWorld(this.#words, index * WORLD_WORDS);
  }

  /** The index of this world; `size` before the call means that it is new. */
  indexOf(world: World): number {
    const end = this.#size * WORLD_WORDS;
    if (end + WORLD_WORDS > this.#words.length) this.#words = grown(this.#words);
    packWorld(world, this.#words, end);
    const slot = this.#slotOf(end);
    const known = this.#table[slot]!;
    if (known !== EMPTY) return known;
    this.#table[slot] = this.#size;
    this.#size++;
    if (this.#size * 2 > this.#table.length) this.#rehash();
    return this.#size - 1;
  }

  /** Of an equal world, compared word by word, or the one where it belongs. */
  #slotOf(at: number): number {
    const mask = this.#table.length - 1;
    let slot = hash(this.#words, at) & mask;
    for (;;) {
      const index = this.#table[slot]!;
      if (index === EMPTY || this.#equal(index * WORLD_WORDS, at)) return slot;
      slot = (slot + 1) & mask;
    }
  }

  #equal(a: number, b: number): boolean {
    for (let i = 0; i < WORLD_WORDS; i++) {
      if (this.#words[a + i] !== this.#words[b + i]) return false;
    }
    return true;
  }

  #rehash(): void {
    this.#table = new Int32Array(this.#table.length * 2).fill(EMPTY);
    for (let index = 0; index < this.#size; index++) {
      this.#table[this.#slotOf(index * WORLD_WORDS)] = index;
    }
  }
}

function hash(words: Uint32Array, at: number): number {
  let h = 0x9e3779b9;
  for (let i = 0; i < WORLD_WORDS; i++) {
    h = Math.imul(h ^ words[at + i]!, 0x85ebca6b);
    h ^= h >>> 15;
  }
  h = Math.imul(h, 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function grown(words: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const more = new Uint32Array(words.length * 2);
  more.set(words);
  return more;
}
