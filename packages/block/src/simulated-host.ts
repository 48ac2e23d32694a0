// A host for tests: files of which it is known what the page cache has and what the disk has. Its
// agent can be killed, or the whole host can crash, before any operation.

import type { BlockDevice, Extent } from "./block-device.ts";
import type { MapStorage } from "./image/map-storage.ts";

const SECTOR_BYTES = 512;
/** What the kernel copies as one. */
const PAGE_BYTES = 4096;

export type HostOperation = "image.write" | "image.flush" | "map.write" | "map.datasync";

export class SimulatedHost {
  readonly image: SimulatedFile;
  readonly map = new SimulatedFile(0);
  bootId = "00000000-0000-0000-0000-000000000001";
  /** Called before an operation takes effect: what it throws is what the operation fails with. */
  onOperation: (operation: HostOperation) => void = () => undefined;
  /** From 0 to 1, as a test likes. */
  readonly random: () => number;
  #boots = 1;
  #life = {};

  constructor(imageBytes: number, random: () => number) {
    this.image = new SimulatedFile(imageBytes);
    this.random = random;
  }

  /** The agent is gone in the middle of whatever it did: nothing of it has an effect any more. */
  killAgent(): void {
    this.#life = {};
    this.onOperation = () => undefined;
  }

  /** So is the host: of what was not synced the disk has something, or nothing. */
  crash(): void {
    this.killAgent();
    this.image.crash(this.random);
    this.map.crash(this.random);
    this.#boots++;
    this.bootId = `00000000-0000-0000-0000-${String(this.#boots).padStart(12, "0")}`;
  }

  openImage(): BlockDevice {
    return new SimulatedImage(this, this.image);
  }

  openMap(): MapStorage {
    return new SimulatedMap(this, this.map);
  }

  /** What belongs to one life of the agent: rejects once it is over. */
  get life(): object {
    return this.#life;
  }

  /** Takes a while, and rejects for ever what a dead agent does. */
  async perform<T>(operation: HostOperation | "read", life: object, work: () => T): Promise<T> {
    await Promise.resolve();
    for (let turns = Math.floor(this.random() * 3); turns > 0; turns--) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    if (life === this.#life && operation !== "read") this.onOperation(operation);
    if (life !== this.#life) throw new Error("this agent is dead");
    return work();
  }
}

export class SimulatedFile {
  cached: Buffer;
  durable: Buffer;
  /** Sectors that the disk has not, by when they were written last. */
  readonly #dirty = new Map<number, number>();
  /** By which write each sector came to the disk. */
  readonly #onDisk = new Map<number, number>();
  #writes = 0;

  constructor(sizeBytes: number) {
    this.cached = Buffer.alloc(sizeBytes);
    this.durable = Buffer.alloc(sizeBytes);
  }

  write(at: number, bytes: Buffer): void {
    this.#grow(at + bytes.length);
    bytes.copy(this.cached, at);
    const last = Math.floor((at + bytes.length - 1) / SECTOR_BYTES);
    this.#writes++;
    for (let sector = Math.floor(at / SECTOR_BYTES); sector <= last; sector++) {
      this.#dirty.set(sector, this.#writes);
    }
  }

  /** Begins a sync; what is called for its end writes what the file held at the beginning. */
  beginSync(): () => void {
    const written = [...this.#dirty].map(([sector, write]) => {
      const at = sector * SECTOR_BYTES;
      return { sector, write, bytes: Buffer.from(this.cached.subarray(at, at + SECTOR_BYTES)) };
    });
    return () => {
      for (const { sector, write, bytes } of written) {
        // Another sync that began later may have ended before.
        if ((this.#onDisk.get(sector) ?? 0) > write) continue;
        this.#onDisk.set(sector, write);
        bytes.copy(this.durable, sector * SECTOR_BYTES);
        if (this.#dirty.get(sector) === write) this.#dirty.delete(sector);
      }
    };
  }

  crash(random: () => number): void {
    const share = random();
    for (const sector of this.#dirty.keys()) if (random() < share) this.#writeBack(sector);
    this.#dirty.clear();
    this.cached = Buffer.from(this.durable);
  }

  #grow(bytes: number): void {
    if (bytes <= this.cached.length) return;
    this.cached = Buffer.concat([this.cached, Buffer.alloc(bytes - this.cached.length)]);
    this.durable = Buffer.concat([this.durable, Buffer.alloc(bytes - this.durable.length)]);
  }

  #writeBack(sector: number): void {
    const [from, to] = [sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES];
    this.cached.copy(this.durable, from, from, Math.min(to, this.cached.length));
  }
}

class SimulatedImage implements BlockDevice {
  readonly sizeBytes: number;
  readonly #host: SimulatedHost;
  readonly #file: SimulatedFile;
  readonly #life: object;

  constructor(host: SimulatedHost, file: SimulatedFile) {
    this.sizeBytes = file.cached.length;
    this.#host = host;
    this.#file = file;
    this.#life = host.life;
  }

  read(offset: number, length: number): Promise<Buffer> {
    return this.#host.perform("read", this.#life, () =>
      Buffer.from(this.#file.cached.subarray(offset, offset + length)),
    );
  }

  async readInto(offset: number, buffer: Buffer): Promise<void> {
    (await this.read(offset, buffer.length)).copy(buffer);
  }

  write(offset: number, data: Buffer): Promise<void> {
    return this.#pieces(offset, data);
  }

  writeZeroes(offset: number, length: number): Promise<void> {
    return this.#pieces(offset, Buffer.alloc(length));
  }

  /** It may leave what there was. */
  async trim(offset: number, length: number): Promise<void> {
    if (this.#host.random() < 0.5) await this.#pieces(offset, Buffer.alloc(length));
  }

  flush(): Promise<void> {
    return this.#host.perform("image.flush", this.#life, this.#file.beginSync());
  }

  extents(offset: number, length: number): Promise<readonly Extent[]> {
    return Promise.resolve([{ offset, length, kind: "data" }]);
  }

  /** Page by page: a death comes in between. */
  async #pieces(offset: number, data: Buffer): Promise<void> {
    for (let done = 0; done < data.length; done += PAGE_BYTES) {
      await this.#host.perform("image.write", this.#life, () => {
        this.#file.write(offset + done, data.subarray(done, done + PAGE_BYTES));
      });
    }
  }
}

class SimulatedMap implements MapStorage {
  readonly sizeBytes: number;
  readonly #host: SimulatedHost;
  readonly #file: SimulatedFile;
  readonly #life: object;

  constructor(host: SimulatedHost, file: SimulatedFile) {
    this.sizeBytes = file.cached.length;
    this.#host = host;
    this.#file = file;
    this.#life = host.life;
  }

  read(position: number, length: number): Promise<Buffer> {
    return this.#host.perform("read", this.#life, () =>
      Buffer.from(this.#file.cached.subarray(position, position + length)),
    );
  }

  write(position: number, bytes: Buffer): Promise<void> {
    return this.#host.perform("map.write", this.#life, () => {
      this.#file.write(position, bytes);
    });
  }

  datasync(): Promise<void> {
    return this.#host.perform("map.datasync", this.#life, this.#file.beginSync());
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Numbers from 0 to 1, the same ones for the same seed. */
export function seededRandom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
