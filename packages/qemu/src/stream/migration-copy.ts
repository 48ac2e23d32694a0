import { createHash } from "node:crypto";

import { RamEncoder } from "./ram-encoder.ts";
import type { RamSection } from "./ram-block.ts";
import { COMMAND, decodeRamDiscard, type RamDiscard } from "./stream-command.ts";
import { PAGE_BYTES } from "./stream-format.ts";
import type { StreamHandler } from "./stream-grammar.ts";

interface LatestPage {
  readonly block: number;
  readonly page: number;
  /** Null = zeros. */
  readonly bytes: Buffer | null;
}

const PAGES_PER_BLOCK_MAX = 2 ** 40;

/**
 * For tests against real QEMUs: everything that a pre-copy stream says, boiled down to the latest
 * version of each page, and written down again as another stream that says the same.
 */
export class MigrationCopy implements StreamHandler {
  readonly commands: number[] = [];
  pageCount = 0;
  /** How many pages came when there was one already. */
  repeatCount = 0;
  /** Those of `pageCount` that came behind the package, in post-copy. */
  postCopyCount = 0;
  readonly discards: RamDiscard[] = [];
  packageEnded = false;
  ramEnded = false;
  readonly #beforePages: Buffer[] = [];
  readonly #behindPages: Buffer[] = [];
  readonly #deviceState: Buffer[] = [];
  readonly #latest = new Map<number, LatestPage>();
  readonly #order = createHash("sha256");
  readonly #onPing: (value: number) => void;
  #section: RamSection = { sectionId: 0, blocks: [] };

  constructor(onPing: (value: number) => void = () => undefined) {
    this.#onPing = onPing;
  }

  get blockNames(): string[] {
    return this.#section.blocks.map(({ name }) => name);
  }

  get latestCount(): number {
    return this.#latest.size;
  }

  page(block: number, page: number, buffer: Buffer, offset: number): void {
    this.#take(block, page, Buffer.from(buffer.subarray(offset, offset + PAGE_BYTES)));
  }

  zeroPage(block: number, page: number): void {
    this.#take(block, page, null);
  }

  verbatim(bytes: Uint8Array): void {
    const pieces = this.#section.blocks.length === 0 ? this.#beforePages : this.#behindPages;
    pieces.push(Buffer.from(bytes));
  }

  command(command: number, payload: Uint8Array): void {
    this.commands.push(command);
    if (command === COMMAND.POSTCOPY_RAM_DISCARD) this.discards.push(decodeRamDiscard(payload));
    if (command === COMMAND.PING) this.#onPing(Buffer.from(payload).readUInt32BE(0));
  }

  ramStart(section: RamSection): void {
    this.#section = section;
  }

  packageEnd(): void {
    this.packageEnded = true;
  }

  partEnd(): void {
    // Where parts end means nothing to a destination.
  }

  ramEnd(): void {
    this.ramEnded = true;
  }

  deviceState(bytes: Uint8Array): void {
    this.#deviceState.push(Buffer.from(bytes));
  }

  /** Of everything that was reported, in its order, however the stream was cut into chunks. */
  orderDigest(): string {
    const rest = [...this.#beforePages, ...this.#behindPages, ...this.#deviceState];
    return this.#order.copy().update(Buffer.concat(rest)).digest("hex");
  }

  /** The stream is there to its last byte: EOF alone in post-copy, else also the description. */
  isWhole(): boolean {
    if (!this.ramEnded) return false;
    const state = Buffer.concat(this.#deviceState);
    if (this.packageEnded) return state.equals(Buffer.of(0));
    for (let at = state.indexOf("\0\x06"); at >= 0; at = state.indexOf("\0\x06", at + 1)) {
      const startsJson = at + 6 < state.length && state[at + 6] === 0x7b;
      if (startsJson && state.readUInt32BE(at + 2) === state.length - at - 6) return true;
    }
    return false;
  }

  /** Each page once, in a random order and in one PART; an empty END; the rest as it was. */
  encodeShuffled(random: () => number): Buffer {
    const encoder = new RamEncoder(this.#section);
    const pages = [...this.#latest.values()];
    for (let last = pages.length - 1; last > 0; last--) {
      const other = Math.floor(random() * (last + 1));
      [pages[last], pages[other]] = [pages[other]!, pages[last]!];
    }
    const recordBytesMax = encoder.pageHeaderBytesMax + PAGE_BYTES;
    const out = Buffer.alloc(RamEncoder.sectionHeaderBytes + pages.length * recordBytesMax + 64);
    let at = encoder.beginPart(out, 0);
    for (const { block, page, bytes } of pages) {
      if (bytes === null) at = encoder.zeroPage(out, at, block, page);
      else {
        at = encoder.pageHeader(out, at, block, page);
        at += bytes.copy(out, at);
      }
    }
    const part = out.subarray(0, encoder.endPart(out, at));
    const end = Buffer.alloc(RamEncoder.emptyEndBytes);
    encoder.emptyEnd(end, 0);
    const pieces = [...this.#beforePages, part, ...this.#behindPages, end, ...this.#deviceState];
    return Buffer.concat(pieces);
  }

  #take(block: number, page: number, bytes: Buffer | null): void {
    const key = block * PAGES_PER_BLOCK_MAX + page;
    this.pageCount++;
    if (this.packageEnded) this.postCopyCount++;
    if (this.#latest.has(key)) this.repeatCount++;
    this.#latest.set(key, { block, page, bytes });
    this.#order.update(`${block}:${page}`).update(bytes ?? "zero");
  }
}
