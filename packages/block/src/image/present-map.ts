/**
 * Which units of an image are there, for a disk that its guest uses while the rest is fetched. It
 * outlives two kinds of death, with a layer for each:
 *
 *   written   the kernel has the unit: counts as long as the host runs on
 *   durable   the disk has the unit: counts always
 *
 *   image write ─▶ mark ─▶ acknowledge                a killed agent finds it again
 *   point ─▶ image flush ─▶ settle ─▶ acknowledge     a crashed host finds it again
 *
 * A unit never becomes missing again. After a failure of the file nothing is marked or settled any
 * more, for nobody knows what it holds.
 */
import { Bitmap, failpoint } from "@vmferry/core";
import { MapLayer, pageOfUnit } from "./map-layer.ts";
import type { MapStorage } from "./map-storage.ts";
import {
  decodeMapHeader,
  encodeMapHeader,
  headerPosition,
  isMapSubject,
  MAP_BLOCK_BYTES,
  mapBytesOf,
  pagesOf,
  unitsOf,
  type MapHeader,
  type MapSubject,
} from "./present-map-codec.ts";

/** Units that the kernel had when it was taken: pages by index. */
export type MapPoint = ReadonlyMap<number, Uint8Array>;

export interface OpenMapOptions {
  readonly storage: MapStorage;
  readonly subject: MapSubject;
  /** Of this host. */
  readonly bootId: string;
}

export class PresentMap {
  readonly units: number;
  readonly #storage: MapStorage;
  readonly #written: MapLayer;
  readonly #durable: MapLayer;
  /** Marked, and the kernel has the mark. */
  readonly #present: Bitmap;
  /** Pages of `written` that have more than `durable`. */
  readonly #unsettled = new Set<number>();
  /** Pages that the next write of marks takes along. */
  readonly #dirty = new Set<number>();
  #header: MapHeader;
  #missing: number;
  #failed = false;
  #nextMark: Promise<void> | null = null;
  #lastMark: Promise<unknown> = Promise.resolve();
  #lastSettle: Promise<unknown> = Promise.resolve();

  private constructor(storage: MapStorage, header: MapHeader) {
    this.#storage = storage;
    this.#header = header;
    this.units = unitsOf(header);
    this.#missing = this.units;
    this.#written = new MapLayer("written", header, storage);
    this.#durable = new MapLayer("durable", header, storage);
    this.#present = new Bitmap(this.units);
  }

  /** `isPresent`: what the image holds for good. Resolves when the map is durable. */
  static async create(
    { storage, subject, bootId }: OpenMapOptions,
    isPresent: (unit: number) => boolean,
  ): Promise<PresentMap> {
    if (!isMapSubject(subject)) throw new Error("no present map can speak of such an image");
    const map = new PresentMap(storage, { ...subject, state: "open", sequence: 0, bootId });
    for (let unit = 0; unit < map.units; unit++) if (isPresent(unit)) map.#durable.set(unit);
    map.#written.replace(map.#durable);
    // Both slots of all pages, so that the file has all its space.
    for (const layer of [map.#durable, map.#durable, map.#written, map.#written]) {
      await layer.writeAll();
    }
    await storage.write(headerPosition(1), encodeMapHeader({ ...map.#header, sequence: 1 }));
    await storage.write(headerPosition(0), encodeMapHeader({ ...map.#header, sequence: 2 }));
    map.#header = { ...map.#header, sequence: 2 };
    await storage.datasync();
    map.#takeWritten();
    return map;
  }

  /** Throws, saying why, where the map is not this one, has failed, or cannot be understood. */
  static async open({ storage, subject, bootId }: OpenMapOptions): Promise<PresentMap> {
    const header = await readHeader(storage);
    if (header === null) throw new Error("the present map has no header that holds");
    for (const key of ["imageBytes", "unitBytes", "migrationId", "epoch"] as const) {
      if (header[key] === subject[key]) continue;
      throw new Error(`the present map is another's: ${key} is ${header[key]}`);
    }
    if (header.state === "failed") throw new Error("the present map says that a write was lost");
    if (storage.sizeBytes !== mapBytesOf(subject)) throw new Error("the present map was cut");
    // The last life may have written a slot and not synced it: with the other one written on top of
    // that, a crash of the host could tear both.
    await firstSync(storage, header);
    const map = new PresentMap(storage, header);
    if (!(await map.#durable.read())) throw new Error("the present map is damaged (durable)");
    if (map.#durable.hasBitsBehind(map.units)) throw new Error("the present map has too many bits");
    if (header.bootId === bootId) await map.#takeUp();
    else await map.#beginBoot(bootId);
    map.#takeWritten();
    return map;
  }

  /** Of an image that is whole, where nobody needs the rest of the map; so also if it cannot be read. */
  static async hasFailed(storage: MapStorage): Promise<boolean> {
    return (await readHeader(storage))?.state !== "open";
  }

  /** As `fail`, of a map that nobody has opened. */
  static async failUnopened(storage: MapStorage): Promise<void> {
    const header = await readHeader(storage);
    if (header?.state === "open") await writeFailed(storage, header);
  }

  get missing(): number {
    return this.#missing;
  }

  has(unit: number): boolean {
    return this.#present.has(unit);
  }

  /** Whether a crash of the host leaves the unit present. */
  isDurable(unit: number): boolean {
    return this.#durable.has(unit);
  }

  /** The kernel has these units. Resolves when it has that too, and `has` says so. */
  async mark(first: number, count: number): Promise<void> {
    this.#check();
    for (let unit = first; unit < first + count; unit++) {
      this.#written.set(unit);
      this.#dirty.add(pageOfUnit(unit));
      this.#unsettled.add(pageOfUnit(unit));
    }
    failpoint("present.mark.before");
    await this.#writeMarks();
    failpoint("present.mark.after");
    this.#addPresent(first, count);
  }

  /** To be taken before the flush of the image that `settle` stands for. */
  point(): MapPoint {
    const pages = new Map<number, Uint8Array>();
    for (const index of this.#unsettled) {
      pages.set(index, Uint8Array.from(this.#written.page(index)));
    }
    this.#unsettled.clear();
    return pages;
  }

  /** The image was flushed after the point was taken. Resolves when its units are durable. */
  settle(point: MapPoint): Promise<void> {
    const settled = this.#lastSettle.then(() => this.#guarded(() => this.#settle(point)));
    this.#lastSettle = settled.catch(() => undefined);
    return settled;
  }

  /** The image has lost something: whoever opens the map from now on is to know, if it can be written. */
  async fail(): Promise<void> {
    if (this.#failed) return;
    this.#failed = true;
    await writeFailed(this.#storage, this.#header);
  }

  async close(): Promise<void> {
    await this.#lastMark;
    await this.#lastSettle;
    await this.#storage.close();
  }

  async #settle(point: MapPoint): Promise<void> {
    this.#check();
    if (point.size === 0) return;
    failpoint("present.settle.before");
    for (const [index, bitmap] of point) {
      this.#durable.merge(index, bitmap);
      await this.#durable.write(index);
    }
    await this.#storage.datasync();
    failpoint("present.settle.after");
  }

  /** Marks that come while one write is under way share the next. */
  #writeMarks(): Promise<void> {
    if (this.#nextMark === null) {
      const write = this.#lastMark.then(() => {
        this.#nextMark = null;
        const pages = [...this.#dirty];
        this.#dirty.clear();
        return this.#guarded(async () => {
          for (const index of pages) await this.#written.write(index);
        });
      });
      this.#nextMark = write;
      this.#lastMark = write.catch(() => undefined);
    }
    return this.#nextMark;
  }

  async #guarded(work: () => Promise<void>): Promise<void> {
    this.#check();
    try {
      await work();
    } catch (error) {
      // That it cannot be said durably either is no further failure.
      await this.fail().catch(() => undefined);
      throw error;
    }
  }

  #check(): void {
    if (this.#failed) throw new Error("the present map has failed before");
  }

  /** The host has not crashed since: its page cache has what was written. */
  async #takeUp(): Promise<void> {
    if (!(await this.#written.read())) throw new Error("the present map is damaged (written)");
    if (this.#written.hasBitsBehind(this.units))
      throw new Error("the present map has too many bits");
    for (let index = 0; index < pagesOf(this.#header); index++) {
      // A settling may have overtaken the mark itself.
      this.#written.merge(index, this.#durable.page(index));
      this.#unsettled.add(index);
    }
  }

  /** What was written and not settled went with the host. */
  async #beginBoot(bootId: string): Promise<void> {
    await this.#written.read();
    this.#written.replace(this.#durable);
    await this.#written.writeAll();
    await firstSync(this.#storage, this.#header);
    const sequence = this.#header.sequence + 1;
    this.#header = { ...this.#header, sequence, bootId };
    await this.#storage.write(headerPosition(sequence), encodeMapHeader(this.#header));
    await firstSync(this.#storage, this.#header);
  }

  #takeWritten(): void {
    for (let unit = 0; unit < this.units; unit++) {
      if (this.#written.has(unit)) this.#addPresent(unit, 1);
    }
  }

  #addPresent(first: number, count: number): void {
    for (let unit = first; unit < first + count; unit++) {
      if (!this.#present.testAndSet(unit)) this.#missing--;
    }
  }
}

/**
 * Of a map that is being opened. Where it fails the next attempt's would succeed, and what the kernel
 * has dropped would count as stored: so the map has failed for good.
 */
async function firstSync(storage: MapStorage, header: MapHeader): Promise<void> {
  await storage.datasync().catch(async (error: unknown) => {
    await writeFailed(storage, header).catch(() => undefined);
    throw error;
  });
}

async function writeFailed(storage: MapStorage, header: MapHeader): Promise<void> {
  const sequence = header.sequence + 1;
  const failed = encodeMapHeader({ ...header, sequence, state: "failed" });
  await storage.write(headerPosition(sequence), failed);
  await storage.datasync();
}

async function readHeader(storage: MapStorage): Promise<MapHeader | null> {
  let newest: MapHeader | null = null;
  for (const slot of [0, 1]) {
    const header = decodeMapHeader(await storage.read(headerPosition(slot), MAP_BLOCK_BYTES));
    if (header === null || header.sequence % 2 !== slot) continue;
    if (newest === null || header.sequence > newest.sequence) newest = header;
  }
  return newest;
}
