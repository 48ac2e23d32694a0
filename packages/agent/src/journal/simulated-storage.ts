/**
 * A journal's place on a disk of which everything is known: what is in the page cache, what a crash
 * of the host would leave, and when an operation fails. As in Linux, a failed sync takes what it
 * could not write for written.
 */
import { JournalError } from "./journal-error.ts";
import type { JournalStorage, StoredJournal } from "./journal-storage.ts";

const SECTOR_BYTES = 512;
/** Of so many sectors that were not written every subset is tried. */
const SUBSET_SECTORS_MAX = 5;

export type Operation =
  "open" | "create" | "replace" | "remove" | "read" | "write" | "truncate" | "datasync";

/** Called before an operation takes effect: what it throws is what the operation fails with. */
export type OnOperation = (operation: Operation) => void;

export class SimulatedStorage implements JournalStorage {
  onOperation: OnOperation;
  #file: SimulatedFile | null;

  constructor(durable: Buffer | null, onOperation: OnOperation = () => undefined) {
    this.#file = durable === null ? null : new SimulatedFile(durable, this);
    this.onOperation = onOperation;
  }

  /** The agent is gone, and the host is not: what it wrote is in the page cache still. */
  agentDies(): void {
    this.#file?.letGo();
    this.onOperation = () => undefined;
  }

  /** What is durable for sure. */
  get durable(): Buffer | null {
    return this.#file?.durable ?? null;
  }

  /** Every content that the file may have after a crash of the host. */
  afterCrash(): (Buffer | null)[] {
    return this.#file === null ? [null] : this.#file.afterCrash();
  }

  open(): Promise<StoredJournal | null> {
    return this.#does("open", () => this.#file?.claim() ?? null);
  }

  create(bytes: Buffer): Promise<StoredJournal | null> {
    return this.#does("create", () => {
      if (this.#file !== null) return null;
      return (this.#file = new SimulatedFile(bytes, this)).claim();
    });
  }

  replace(bytes: Buffer): Promise<StoredJournal> {
    return this.#does("replace", () => (this.#file = new SimulatedFile(bytes, this)).claim());
  }

  remove(): Promise<void> {
    return this.#does("remove", () => {
      this.#file = null;
    });
  }

  async #does<T>(operation: Operation, act: () => T): Promise<T> {
    await Promise.resolve();
    this.onOperation(operation);
    return act();
  }
}

class SimulatedFile implements StoredJournal {
  readonly #storage: SimulatedStorage;
  #durable: Buffer;
  #cached: Buffer;
  /** Sectors that the next sync writes. */
  readonly #dirty = new Set<number>();
  /** Sectors whose sync failed: the disk may have them, and nobody writes them again. */
  readonly #unsure = new Set<number>();
  #isHeld = false;

  constructor(durable: Buffer, storage: SimulatedStorage) {
    this.#storage = storage;
    this.#durable = Buffer.from(durable);
    this.#cached = Buffer.from(durable);
  }

  get sizeBytes(): number {
    return this.#cached.length;
  }

  get durable(): Buffer {
    return Buffer.from(this.#durable);
  }

  claim(): this {
    if (this.#isHeld) throw new JournalError("held", { code: "journal-locked", path: "" });
    this.#isHeld = true;
    return this;
  }

  letGo(): void {
    this.#isHeld = false;
  }

  afterCrash(): Buffer[] {
    const open = this.#dirty.union(this.#unsure);
    const contents = [this.#durable, this.#merged(open)];
    for (let bytes = this.#durable.length; bytes < this.#cached.length; bytes++) {
      contents.push(this.#merged(open).subarray(0, bytes));
    }
    const sectors = [...open].slice(0, SUBSET_SECTORS_MAX);
    for (let subset = 0; subset < 2 ** sectors.length; subset++) {
      contents.push(this.#merged(new Set(sectors.filter((_, i) => (subset >> i) & 1))));
    }
    return contents.map((content) => Buffer.from(content));
  }

  async read(): Promise<Buffer> {
    await this.#begins("read");
    return Buffer.from(this.#cached);
  }

  async write(bytes: Buffer, position: number): Promise<void> {
    await this.#begins("write");
    const end = position + bytes.length;
    this.#cached = resized(this.#cached, Math.max(this.#cached.length, end));
    this.#cached.set(bytes, position);
    for (let at = position; at < end; at++) this.#dirty.add(Math.floor(at / SECTOR_BYTES));
  }

  async truncate(bytes: number): Promise<void> {
    await this.#begins("truncate");
    this.#cached = resized(this.#cached, bytes);
    // The kernel fills the rest of the page with zeros.
    this.#dirty.add(Math.floor(bytes / SECTOR_BYTES));
  }

  async datasync(): Promise<void> {
    try {
      await this.#begins("datasync");
      this.#durable = this.#merged(this.#dirty);
      for (const sector of this.#dirty) this.#unsure.delete(sector);
    } catch (error) {
      for (const sector of this.#dirty) this.#unsure.add(sector);
      throw error;
    } finally {
      this.#dirty.clear();
    }
  }

  close(): Promise<void> {
    this.letGo();
    return Promise.resolve();
  }

  /** The file's new length, with the new content of these sectors. */
  #merged(written: ReadonlySet<number>): Buffer {
    const merged = resized(this.#durable, this.#cached.length);
    for (const sector of written) {
      const [from, to] = [sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES];
      merged.set(this.#cached.subarray(from, to), Math.min(from, merged.length));
    }
    return merged;
  }

  async #begins(operation: Operation): Promise<void> {
    await Promise.resolve();
    this.#storage.onOperation(operation);
  }
}

function resized(bytes: Buffer, length: number): Buffer {
  const copy = Buffer.alloc(length);
  copy.set(bytes.subarray(0, length));
  return copy;
}
