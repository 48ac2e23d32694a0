import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

import type { RamBlock, RamSection } from "./ram-block.ts";
import { ReturnPathDecoder } from "./return-path-decoder.ts";
import type { ReturnPathMessage } from "./return-path-message.ts";
import { COMMAND, decodeRamDiscard } from "./stream-command.ts";
import { StreamDecoder } from "./stream-decoder.ts";
import { PAGE_BYTES } from "./stream-format.ts";
import type { StreamHandler } from "./stream-grammar.ts";

/*
 * For tests: post-copy migrations of QEMU 10.0.2 as `bench/postcopy-record.ts` recorded them, without
 * the pages of pre-copy: `postcopy10` was cut in the middle, `recovery10` went on with it, and
 * `preempt10` had a second connection, `preempt10-requested`.
 */

export function recordedForward(name: string): Buffer {
  const path = new URL(`fixtures/${name}.forward.gz`, import.meta.url);
  return gunzipSync(readFileSync(path));
}

export function recordedBack(name: string): Buffer {
  return readFileSync(new URL(`fixtures/${name}.back`, import.meta.url));
}

export function decodeBack(bytes: Buffer, blocks: readonly RamBlock[]): ReturnPathMessage[] {
  const messages: ReturnPathMessage[] = [];
  const limits = { bitmapBytesMax: 2 ** 20, blocks: () => blocks };
  const decoder = new ReturnPathDecoder((message) => messages.push(message), limits);
  decoder.push(bytes);
  decoder.end();
  return messages;
}

/** Names a page whatever the order of blocks. */
export function pageKey(block: string, page: number): string {
  return `${block}:${page}`;
}

/** What a stream said of post-copy: its commands, and the pages that came, in order. */
export class PostcopyNotes implements StreamHandler {
  readonly commands: number[] = [];
  readonly discarded = new Set<string>();
  readonly pages: string[] = [];
  readonly askedBlocks: string[] = [];
  behindEnd = "";
  section: RamSection;

  constructor(section: RamSection = { sectionId: 0, blocks: [] }) {
    this.section = section;
  }

  page(block: number, page: number): void {
    this.pages.push(pageKey(this.section.blocks[block]!.name, page));
  }

  zeroPage(block: number, page: number): void {
    this.page(block, page);
  }

  command(command: number, payload: Uint8Array): void {
    this.commands.push(command);
    if (command === COMMAND.RECV_BITMAP) {
      this.askedBlocks.push(Buffer.from(payload.subarray(1)).toString("latin1"));
    }
    if (command !== COMMAND.POSTCOPY_RAM_DISCARD) return;
    const { block, ranges } = decodeRamDiscard(payload);
    for (const { startBytes, lengthBytes } of ranges) {
      for (let at = startBytes; at < startBytes + lengthBytes; at += PAGE_BYTES) {
        this.discarded.add(pageKey(block, at / PAGE_BYTES));
      }
    }
  }

  ramStart(section: RamSection): void {
    this.section = section;
  }

  deviceState(bytes: Uint8Array): void {
    this.behindEnd += Buffer.from(bytes).toString("hex");
  }

  verbatim(): void {
    // What is in it was told by `command` and `ramStart`.
  }

  partEnd(): void {
    // Parts mean nothing.
  }

  ramEnd(): void {
    // `deviceState` follows.
  }
}

/** Decodes in chunks of this size; `resumed` for a stream without a header. */
export function decodeForward(
  bytes: Buffer,
  options: { readonly chunkBytes: number; readonly resumed?: RamSection },
): { readonly notes: PostcopyNotes; readonly decoder: StreamDecoder } {
  const { chunkBytes, resumed } = options;
  const notes = new PostcopyNotes(resumed);
  const decoder = new StreamDecoder(notes, {}, resumed ?? null);
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    decoder.push(bytes.subarray(at, at + chunkBytes));
  }
  return { notes, decoder };
}
