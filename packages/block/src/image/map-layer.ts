/** One layer of a present map: its bits, and which slot each of its pages was written to last. */
import {
  decodeMapPage,
  encodeMapPage,
  MAP_BLOCK_BYTES,
  PAGE_BITMAP_BYTES,
  PAGE_UNITS,
  pagePosition,
  pagesOf,
  type MapLayerName,
  type MapPage,
  type MapSubject,
} from "./present-map-codec.ts";
import type { MapStorage } from "./map-storage.ts";

export class MapLayer {
  readonly #name: MapLayerName;
  readonly #subject: MapSubject;
  readonly #storage: MapStorage;
  readonly #bits: Uint8Array;
  readonly #sequences: Float64Array;

  constructor(name: MapLayerName, subject: MapSubject, storage: MapStorage) {
    const pages = pagesOf(subject);
    this.#name = name;
    this.#subject = subject;
    this.#storage = storage;
    this.#bits = new Uint8Array(pages * PAGE_BITMAP_BYTES);
    this.#sequences = new Float64Array(pages);
  }

  has(unit: number): boolean {
    return (this.#bits[unit >>> 3]! & (1 << (unit & 7))) !== 0;
  }

  /** In memory alone, until the page is written. */
  set(unit: number): void {
    this.#bits[unit >>> 3]! |= 1 << (unit & 7);
  }

  /** A view. */
  page(index: number): Uint8Array {
    return this.#bits.subarray(index * PAGE_BITMAP_BYTES, (index + 1) * PAGE_BITMAP_BYTES);
  }

  /** The bits that `bitmap` has are set as well. */
  merge(index: number, bitmap: Uint8Array): void {
    const page = this.page(index);
    for (let i = 0; i < page.length; i++) page[i]! |= bitmap[i]!;
  }

  replace(other: MapLayer): void {
    this.#bits.set(other.#bits);
  }

  hasBitsBehind(units: number): boolean {
    for (let unit = units; unit < this.#bits.length * 8; unit++) if (this.has(unit)) return true;
    return false;
  }

  /** What the page holds at the call goes to the slot that was not written last. */
  async write(index: number): Promise<void> {
    const sequence = this.#sequences[index]! + 1;
    this.#sequences[index] = sequence;
    const page = { layer: this.#name, index, sequence, bitmap: this.page(index) };
    await this.#storage.write(pagePosition(this.#subject, page), encodeMapPage(page));
  }

  async writeAll(): Promise<void> {
    for (let index = 0; index < this.#sequences.length; index++) await this.write(index);
  }

  /** False where a page has no slot that holds; all others are read all the same. */
  async read(): Promise<boolean> {
    let holds = true;
    for (let index = 0; index < this.#sequences.length; index++) {
      const newest = newer(await this.#readSlot(index, 0), await this.#readSlot(index, 1));
      if (newest === null) holds = false;
      else {
        this.#sequences[index] = newest.sequence;
        this.page(index).set(newest.bitmap);
      }
    }
    return holds;
  }

  async #readSlot(index: number, slot: number): Promise<MapPage | null> {
    const at = pagePosition(this.#subject, { layer: this.#name, index, sequence: slot });
    const page = decodeMapPage(await this.#storage.read(at, MAP_BLOCK_BYTES));
    const isItself = page?.layer === this.#name && page.index === index;
    return isItself && page.sequence % 2 === slot ? page : null;
  }
}

export function pageOfUnit(unit: number): number {
  return Math.floor(unit / PAGE_UNITS);
}

function newer(a: MapPage | null, b: MapPage | null): MapPage | null {
  if (a === null || b === null) return a ?? b;
  return a.sequence > b.sequence ? a : b;
}
