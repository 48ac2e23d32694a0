import type { RamBlock } from "./ram-block.ts";
import { ReturnPathError, type ReturnPathMessage } from "./return-path-message.ts";
import { PAGE_BYTES } from "./stream-format.ts";

/** Pages that a dest waits for: one host page of a block. */
export interface PageRequest {
  /** Index in the block list. */
  readonly block: number;
  readonly firstPage: number;
  readonly pageCount: number;
}

/**
 * What a REQ_PAGES means; refuses one for a block that was not announced, outside of it, or for
 * anything but one whole host page, which is what a dest waits for.
 */
export function pageRequestOf(
  message: Extract<ReturnPathMessage, { type: "req-pages" }>,
  blocks: readonly RamBlock[],
): PageRequest {
  const { startBytes, lengthBytes } = message;
  const block = blockIndexOf(message.block, blocks);
  const { lengthBytes: blockBytes, hostPageBytes = PAGE_BYTES } = blocks[block]!;
  const isHostPage = lengthBytes === hostPageBytes && startBytes % hostPageBytes === 0;
  if (!isHostPage || startBytes + lengthBytes > blockBytes) {
    const what = `${lengthBytes} bytes from ${startBytes} of block "${message.block}"`;
    throw new ReturnPathError(`a request for ${what}, which has ${blockBytes}`, {
      code: "return-path-bad-request",
      block: message.block,
      startBytes,
      lengthBytes,
    });
  }
  return {
    block,
    firstPage: startBytes / PAGE_BYTES,
    pageCount: lengthBytes / PAGE_BYTES,
  };
}

/** How long the bitmap of a block is: one bit a page, in whole 64-bit words. */
export function receivedBitmapBytes({ lengthBytes }: Pick<RamBlock, "lengthBytes">): number {
  return Math.ceil(lengthBytes / PAGE_BYTES / 64) * 8;
}

export function blockIndexOf(name: string, blocks: readonly RamBlock[]): number {
  const index = blocks.findIndex((block) => block.name === name);
  if (index >= 0) return index;
  throw new ReturnPathError(`block "${name}" on the return path, which was not announced`, {
    code: "return-path-unknown-block",
    block: name,
  });
}
