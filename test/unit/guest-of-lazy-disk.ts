/**
 * A guest with a disk of which it knows, sector by sector, what it may hold: what was written last,
 * and after a crash of the host anything since the last flush that was acknowledged.
 */
import { BlockError, type BlockDevice } from "@vmferry/block";

const SECTOR_BYTES = 512;
const SECTORS_PER_REQUEST_MAX = 80;
const ZERO = 0;
/** Its content does not matter: whatever it held before, or zeros. */
const TRIMMED = -1;

interface Sector {
  /** Oldest first. Before the first one nothing can be there any more, whatever happens. */
  values: number[];
  /** How many were dropped before the first one. */
  dropped: number;
  /** Index, dropped ones included, of the latest that was acknowledged. */
  acknowledged: number;
}

interface Request {
  readonly kind: "read" | "write" | "zero" | "trim" | "flush";
  readonly first: number;
  readonly count: number;
  readonly value: number;
}

export class GuestOfLazyDisk {
  /** What it has seen that cannot be. */
  failure: unknown = null;
  readonly #sectors: Sector[];
  readonly #random: () => number;
  readonly #open = new Set<Request>();
  /** After the death of the agent: what the next one is told again. */
  #again: Request[] = [];
  #life = {};
  #nextValue = 1;

  constructor(sectors: number, random: () => number) {
    this.#sectors = Array.from({ length: sectors }, () => known(ZERO));
    this.#random = random;
  }

  get busy(): number {
    return this.#open.size;
  }

  get idle(): boolean {
    return this.#open.size === 0 && this.#again.length === 0;
  }

  /** Before anything: the disk holds something here, which goes to `content`. */
  begin(sector: number, content: Buffer): void {
    const value = this.#nextValue++;
    this.#sectors[sector] = known(value);
    fill(content, value);
  }

  /** Begins a request; false where chance has chosen one that is in the way of another. */
  request(disk: BlockDevice): boolean {
    const request = this.#choose();
    for (const other of this.#open) if (overlap(request, other)) return false;
    this.#start(request, disk);
    return true;
  }

  /** There is a new agent: it gets again what was not answered. */
  attach(disk: BlockDevice): void {
    for (const request of this.#again.splice(0)) this.#start(request, disk);
  }

  /** The host goes on: the requests under way may have been carried out or not. */
  lostAgent(): void {
    this.#life = {};
    this.#again.push(...this.#open);
    this.#open.clear();
  }

  /** The host has crashed, and the guest with it. */
  lostHost(): void {
    this.#life = {};
    this.#open.clear();
    this.#again = [];
  }

  /** It boots again, and sees what the disk holds. */
  boot(disk: Buffer): void {
    for (const [index, sector] of this.#sectors.entries()) {
      const value = valueOf(at(disk, index));
      const mayBe = sector.values.includes(TRIMMED) ? [...sector.values, ZERO] : sector.values;
      if (value === null || value === TRIMMED || !mayBe.includes(value)) {
        throw new Error(`after a crash, sector ${index} is ${value}, of ${mayBe.join(", ")}`);
      }
      this.#sectors[index] = known(value);
    }
  }

  /** A whole image. */
  expectCurrent(image: Buffer): void {
    this.#check({ first: 0, count: this.#sectors.length }, image);
  }

  #choose(): Request {
    const chance = this.#random();
    const first = Math.floor(this.#random() * this.#sectors.length);
    const longest = Math.min(SECTORS_PER_REQUEST_MAX, this.#sectors.length - first);
    const count = 1 + Math.floor(this.#random() ** 2 * (longest - 1));
    if (chance < 0.3) return { kind: "read", first, count, value: ZERO };
    if (chance < 0.65) return { kind: "write", first, count, value: this.#nextValue++ };
    if (chance < 0.75) return { kind: "zero", first, count, value: ZERO };
    if (chance < 0.85) return { kind: "trim", first, count, value: TRIMMED };
    return { kind: "flush", first: 0, count: 0, value: ZERO };
  }

  #start(request: Request, disk: BlockDevice): void {
    const life = this.#life;
    this.#open.add(request);
    this.#carryOut(request, disk, life).then(
      () => {
        if (life === this.#life) this.#open.delete(request);
      },
      (error: unknown) => {
        if (life !== this.#life) return;
        if (!(error instanceof BlockError)) {
          this.failure ??= error;
          return;
        }
        // As after an error that has stopped the guest, when it goes on.
        setImmediate(() => {
          if (life === this.#life) this.#start(request, disk);
        });
      },
    );
  }

  async #carryOut(request: Request, disk: BlockDevice, life: object): Promise<void> {
    const { kind, first, count, value } = request;
    const [offset, length] = [first * SECTOR_BYTES, count * SECTOR_BYTES];
    if (kind === "read") {
      const content = await disk.read(offset, length);
      if (life === this.#life) this.#check(request, content);
      return;
    }
    if (kind === "flush") {
      const acknowledged = this.#sectors.map((sector) => sector.acknowledged);
      await disk.flush();
      if (life === this.#life) this.#forgetBefore(acknowledged);
      return;
    }
    const sectors = this.#sectors.slice(first, first + count);
    for (const { values } of sectors) values.push(value);
    if (kind === "write") await disk.write(offset, contentOf(value, count));
    else if (kind === "trim") await disk.trim(offset, length);
    else await disk.writeZeroes(offset, length, { mayPunch: this.#random() < 0.5 });
    if (life !== this.#life) return;
    for (const sector of sectors) sector.acknowledged = sector.dropped + sector.values.length - 1;
  }

  #check({ first, count }: Pick<Request, "first" | "count">, content: Buffer): void {
    for (const [i, { values }] of this.#sectors.slice(first, first + count).entries()) {
      // What was trimmed shows zeros, or what was there before.
      const last = values.findLastIndex((each) => each !== TRIMMED);
      const mayBe = [values[last], ...(last < values.length - 1 ? [ZERO] : [])];
      const value = valueOf(at(content, i));
      if (value === null || !mayBe.includes(value)) {
        throw new Error(`sector ${first + i} reads as ${value}, of ${mayBe.join(", ")}`);
      }
    }
  }

  /** What was acknowledged when a flush began can be taken back no more. */
  #forgetBefore(acknowledged: readonly number[]): void {
    for (const [index, sector] of this.#sectors.entries()) {
      let oldest = (acknowledged[index] ?? 0) - sector.dropped;
      // What was trimmed may show what was there before.
      while (oldest > 0 && sector.values[oldest] === TRIMMED) oldest--;
      if (oldest <= 0) continue;
      sector.values.splice(0, oldest);
      sector.dropped += oldest;
    }
  }
}

function known(value: number): Sector {
  return { values: [value], dropped: 0, acknowledged: 0 };
}

function overlap(a: Request, b: Request): boolean {
  return a.first < b.first + b.count && b.first < a.first + a.count;
}

function at(content: Buffer, sector: number): Buffer {
  return content.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
}

function contentOf(value: number, count: number): Buffer {
  const content = Buffer.alloc(count * SECTOR_BYTES);
  fill(content, value);
  return content;
}

function fill(content: Buffer, value: number): void {
  for (let i = 0; i < content.length; i += 4) content.writeUInt32BE(value, i);
}

/** Null for what no guest has written. */
function valueOf(sector: Buffer): number | null {
  const value = sector.readUInt32BE(0);
  return sector.equals(contentOf(value, 1)) ? value : null;
}
