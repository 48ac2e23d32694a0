import type { RamBlock } from "./ram-block.ts";
import {
  ADDRESS_BYTES,
  NAME_BYTES_MAX,
  NAME_ENCODING,
  PAGE_BYTES,
  RAM_FLAG,
} from "./stream-format.ts";
import { StreamError } from "./stream-error.ts";

/*
 * The hot loop: a run of RAM records up to EOS.
 *
 * Almost every record of a real stream names the block of the one before it (CONTINUE) and lies
 * whole in the chunk: #whole takes those, with nothing allocated and nothing copied. Any other one
 * (a named block, EOS, a record across two chunks, an illegal one) is left to #head and #page, where
 * the head of the record is collected first and then judged in one place.
 */

export interface RamRecordHandler {
  /** One page: PAGE_BYTES bytes at buffer[offset], valid only during the call. */
  page(block: number, page: number, buffer: Buffer, offset: number): void;
  /** `page` counts from the start of the block. */
  zeroPage(block: number, page: number): void;
}

const FLAG_MASK = PAGE_BYTES - 1;
const NEXT_PAGE = RAM_FLAG.PAGE | RAM_FLAG.CONTINUE;
const NEXT_ZERO = RAM_FLAG.ZERO | RAM_FLAG.CONTINUE;
/** Pages that the high word of an address counts for: 2^32 / PAGE_BYTES. */
const PAGES_PER_HIGH = 0x100000;
const HEAD_BYTES_MAX = ADDRESS_BYTES + 1 + NAME_BYTES_MAX + 1;

/** The records of one channel; which block CONTINUE means is remembered across its sections. */
export class RamRecordDecoder {
  readonly #handler: RamRecordHandler;
  readonly #blocks: readonly RamBlock[];
  readonly #indexes: ReadonlyMap<string, number>;
  #block = -1;
  #pageCount = 0;
  #ended = false;
  /** The head of a record that is not whole yet: address, name, fill byte. */
  readonly #head = Buffer.alloc(HEAD_BYTES_MAX);
  #headBytes = 0;
  /** The page whose bytes come next, or -1, and what is there of one that lies across chunks. */
  #pending = -1;
  readonly #straddled = Buffer.alloc(PAGE_BYTES);
  #straddledBytes = 0;

  constructor(blocks: readonly RamBlock[], handler: RamRecordHandler) {
    this.#handler = handler;
    this.#blocks = blocks;
    this.#indexes = new Map(blocks.map((block, index) => [block.name, index]));
  }

  /** EOS was read. `begin` opens the next run of records. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Nothing of a record is held back. */
  get atBoundary(): boolean {
    return this.#headBytes === 0 && this.#pending < 0;
  }

  begin(): void {
    this.#ended = false;
  }

  /** Decodes from `start` to EOS or to the end of the chunk, and returns where it stopped. */
  decode(chunk: Buffer, start: number): number {
    let at = start;
    while (at < chunk.length && !this.#ended) {
      if (this.#pending >= 0) at = this.#takePage(chunk, at);
      else if (this.#headBytes > 0) at = this.#takeHead(chunk, at);
      else {
        at = this.#whole(chunk, at);
        if (at < chunk.length) at = this.#takeHead(chunk, at);
      }
    }
    return at;
  }

  /** Records of the current block that lie whole in the chunk; stops at the first other one. */
  #whole(chunk: Buffer, start: number): number {
    const handler = this.#handler;
    const block = this.#block;
    const pageCount = this.#pageCount;
    const last = chunk.length - ADDRESS_BYTES;
    let at = start;
    while (at <= last) {
      const flags = ((chunk[at + 6]! << 8) | chunk[at + 7]!) & FLAG_MASK;
      const page = pageAt(chunk, at);
      if (page >= pageCount) break;
      if (flags === NEXT_PAGE) {
        if (at + ADDRESS_BYTES + PAGE_BYTES > chunk.length) break;
        handler.page(block, page, chunk, at + ADDRESS_BYTES);
        at += ADDRESS_BYTES + PAGE_BYTES;
      } else if (flags === NEXT_ZERO) {
        if (at === last || chunk[at + ADDRESS_BYTES] !== 0) break;
        handler.zeroPage(block, page);
        at += ADDRESS_BYTES + 1;
      } else break;
    }
    return at;
  }

  /** Collects the head of a record and judges it once it is there. */
  #takeHead(chunk: Buffer, start: number): number {
    let at = start;
    for (;;) {
      const missing = this.#headBytesNeeded() - this.#headBytes;
      if (missing === 0) break;
      const taken = Math.min(missing, chunk.length - at);
      chunk.copy(this.#head, this.#headBytes, at, at + taken);
      this.#headBytes += taken;
      at += taken;
      if (taken < missing) return at;
    }
    this.#record();
    this.#headBytes = 0;
    return at;
  }

  /** How long the head has to be, as far as the bytes that are there tell. */
  #headBytesNeeded(): number {
    if (this.#headBytes < ADDRESS_BYTES) return ADDRESS_BYTES;
    const flags = this.#head.readUInt16BE(6) & FLAG_MASK;
    if (flags === RAM_FLAG.EOS) return ADDRESS_BYTES;
    checkFlags(flags);
    const fillBytes = (flags & RAM_FLAG.ZERO) === 0 ? 0 : 1;
    if ((flags & RAM_FLAG.CONTINUE) !== 0) return ADDRESS_BYTES + fillBytes;
    if (this.#headBytes === ADDRESS_BYTES) return ADDRESS_BYTES + 1;
    return ADDRESS_BYTES + 1 + this.#head[ADDRESS_BYTES]! + fillBytes;
  }

  #record(): void {
    const head = this.#head;
    const flags = head.readUInt16BE(6) & FLAG_MASK;
    const page = pageAt(head, 0);
    if (flags === RAM_FLAG.EOS) {
      if (page !== 0) throw unsupportedFlag("EOS with an address");
      this.#ended = true;
      return;
    }
    if ((flags & RAM_FLAG.CONTINUE) === 0) {
      const nameAt = ADDRESS_BYTES + 1;
      this.#enter(head.toString(NAME_ENCODING, nameAt, nameAt + head[ADDRESS_BYTES]!));
    } else if (this.#block < 0) {
      throw new StreamError("a page continues a block, but no block was named yet", {
        code: "stream-no-block",
        page,
      });
    }
    if (page >= this.#pageCount) throw this.#outOfRange(page);
    if ((flags & RAM_FLAG.ZERO) === 0) {
      this.#pending = page;
      return;
    }
    const fill = head[this.#headBytes - 1]!;
    if (fill !== 0) {
      // QEMU 7.2 would fill the page with it, QEMU 10 fails: nobody sends it.
      throw new StreamError(`a zero page is filled with ${fill}`, {
        code: "stream-zero-fill",
        fill,
      });
    }
    this.#handler.zeroPage(this.#block, page);
  }

  #enter(name: string): void {
    const index = this.#indexes.get(name);
    if (index === undefined) {
      throw new StreamError(`a page of block "${name}", which was not announced`, {
        code: "stream-unknown-block",
        name,
      });
    }
    this.#block = index;
    this.#pageCount = this.#blocks[index]!.lengthBytes / PAGE_BYTES;
  }

  /** The page's bytes: from the chunk as they lie where they are whole, else put together. */
  #takePage(chunk: Buffer, at: number): number {
    const page = this.#pending;
    const available = chunk.length - at;
    if (this.#straddledBytes === 0 && available >= PAGE_BYTES) {
      this.#pending = -1;
      this.#handler.page(this.#block, page, chunk, at);
      return at + PAGE_BYTES;
    }
    const taken = Math.min(PAGE_BYTES - this.#straddledBytes, available);
    chunk.copy(this.#straddled, this.#straddledBytes, at, at + taken);
    this.#straddledBytes += taken;
    if (this.#straddledBytes === PAGE_BYTES) {
      this.#pending = -1;
      this.#straddledBytes = 0;
      this.#handler.page(this.#block, page, this.#straddled, 0);
    }
    return at + taken;
  }

  #outOfRange(page: number): StreamError {
    const block = this.#blocks[this.#block]!.name;
    const pageCount = this.#pageCount;
    return new StreamError(`page ${page} of block "${block}", which has ${pageCount}`, {
      code: "stream-page-out-of-range",
      block,
      page,
      pageCount,
    });
  }
}

/** The page number in an address word: 52 bits, so a number is exact, and small ones stay small. */
function pageAt(bytes: Buffer, at: number): number {
  const low = (bytes[at + 4]! << 12) | (bytes[at + 5]! << 4) | (bytes[at + 6]! >>> 4);
  const high =
    bytes[at]! * 0x1000000 + ((bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!);
  return high * PAGES_PER_HIGH + low;
}

/** Refuses every record that is not a page or a zero page. */
function checkFlags(flags: number): void {
  const kind = flags & ~RAM_FLAG.CONTINUE;
  if (kind === RAM_FLAG.PAGE || kind === RAM_FLAG.ZERO) return;
  throw unsupportedFlag(flagName(kind));
}

function flagName(kind: number): string {
  const known = Object.entries(RAM_FLAG).find(([, value]) => value === kind);
  return known?.[0] ?? `0x${kind.toString(16).padStart(3, "0")}`;
}

/**
 * MULTIFD_FLUSH is refused as well: QEMU 10 writes it only when pages travel over other
 * connections, and to pass over it would lose them without a word. (QEMU 8.1.0 wrote it always;
 * that one is not supported.)
 */
function unsupportedFlag(flag: string): StreamError {
  return new StreamError(`a RAM record of a kind that is not supported: ${flag}`, {
    code: "stream-unsupported-flag",
    flag,
  });
}
