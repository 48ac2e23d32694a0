import { assert } from "@vmferry/core";

import { encodeBlockName, type RamSection } from "./ram-block.ts";
import { ADDRESS_BYTES, FOOTER_BYTES, PAGE_BYTES, RAM_FLAG, RECORD } from "./stream-format.ts";

const SECTION_HEADER_BYTES = 5;
const NO_BLOCK = -1;
/** Pages that the high word of an address counts for: 2^32 / PAGE_BYTES. */
const PAGES_PER_HIGH = 0x100000;
const PAGE_IN_LOW_MASK = PAGES_PER_HIGH - 1;

/**
 * Writes RAM sections for a destination QEMU: every method writes into the caller's buffer at an
 * offset and returns the offset behind what it wrote. A page's bytes are the caller's to put behind
 * its header, so that they need not be copied here.
 *
 * A record that stays in the block of the one before it leaves the name out; that memory lasts
 * across sections, as the destination's does, so one encoder serves one connection.
 */
export class RamEncoder {
  /** What beginPart, beginEnd, endPart and emptyEnd write. */
  static readonly sectionHeaderBytes = SECTION_HEADER_BYTES;
  static readonly partEndBytes = ADDRESS_BYTES + FOOTER_BYTES;
  static readonly emptyEndBytes = SECTION_HEADER_BYTES + ADDRESS_BYTES + FOOTER_BYTES;
  /** What a record takes that stays in its block: the header of a page, and a whole zero page. */
  static readonly continuedPageHeaderBytes = ADDRESS_BYTES;
  static readonly continuedZeroPageBytes = ADDRESS_BYTES + 1;

  /** The longest header of a page that these blocks can have; a zero page takes one byte more. */
  readonly pageHeaderBytesMax: number;
  readonly #sectionId: number;
  readonly #names: readonly Buffer[];
  readonly #pageCounts: readonly number[];
  #block = NO_BLOCK;

  constructor(section: RamSection) {
    this.#sectionId = section.sectionId;
    this.#names = section.blocks.map((block) => encodeBlockName(block.name));
    this.#pageCounts = section.blocks.map((block) => block.lengthBytes / PAGE_BYTES);
    this.pageHeaderBytesMax =
      ADDRESS_BYTES + Math.max(0, ...this.#names.map((name) => name.length));
  }

  /** The next record names its block, whichever it is: for a new connection. */
  forgetBlock(): void {
    this.#block = NO_BLOCK;
  }

  beginPart(out: Buffer, offset: number): number {
    return this.#section(out, offset, RECORD.PART);
  }

  /** The last section of RAM: what follows its `endPart` is device state. */
  beginEnd(out: Buffer, offset: number): number {
    return this.#section(out, offset, RECORD.END);
  }

  /** Ends what beginPart or beginEnd began. */
  endPart(out: Buffer, offset: number): number {
    let at = out.writeUInt32BE(0, offset);
    at = out.writeUInt32BE(RAM_FLAG.EOS, at);
    return this.#section(out, at, RECORD.FOOTER);
  }

  emptyEnd(out: Buffer, offset: number): number {
    return this.endPart(out, this.beginEnd(out, offset));
  }

  /** The header of a page; its PAGE_BYTES bytes have to follow. */
  pageHeader(out: Buffer, offset: number, block: number, page: number): number {
    const end = this.#head(out, offset, block, page);
    out[offset + 7]! |= RAM_FLAG.PAGE;
    return end;
  }

  /** A whole record: nothing follows. */
  zeroPage(out: Buffer, offset: number, block: number, page: number): number {
    const end = this.#head(out, offset, block, page);
    assert(end < out.length, "a zero page fits what is left of the buffer");
    out[offset + 7]! |= RAM_FLAG.ZERO;
    out[end] = 0;
    return end + 1;
  }

  /** Address and block of a record whose flag is still to be set. */
  #head(out: Buffer, offset: number, block: number, page: number): number {
    assert(page >= 0 && page < this.#pageCounts[block]!, "a page lies inside its block");
    // Bit operations take the low 32 bits of any safe integer, so this holds for 2^52 pages.
    const low = page & PAGE_IN_LOW_MASK;
    const high = (page - low) / PAGES_PER_HIGH;
    const isContinued = block === this.#block;
    assert(offset + ADDRESS_BYTES <= out.length, "a page header fits what is left of the buffer");
    out[offset] = high >>> 24;
    out[offset + 1] = high >>> 16;
    out[offset + 2] = high >>> 8;
    out[offset + 3] = high;
    out[offset + 4] = low >>> 12;
    out[offset + 5] = low >>> 4;
    out[offset + 6] = low << 4;
    out[offset + 7] = isContinued ? RAM_FLAG.CONTINUE : 0;
    return isContinued ? offset + ADDRESS_BYTES : this.#name(out, offset + ADDRESS_BYTES, block);
  }

  #name(out: Buffer, offset: number, block: number): number {
    const name = this.#names[block]!;
    const end = offset + name.length;
    assert(end <= out.length, "a block name fits what is left of the buffer");
    out.set(name, offset);
    this.#block = block;
    return end;
  }

  #section(out: Buffer, offset: number, type: number): number {
    const end = out.writeUInt8(type, offset);
    return out.writeUInt32BE(this.#sectionId, end);
  }
}
