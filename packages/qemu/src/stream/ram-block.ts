import { assert } from "@vmferry/core";

import { NAME_BYTES_MAX, NAME_ENCODING } from "./stream-format.ts";

/** A piece of guest memory as the RAM section's block list announces it; its index is its position. */
export interface RamBlock {
  readonly name: string;
  /** A multiple of PAGE_BYTES. */
  readonly lengthBytes: number;
  /** Only where the memory lies in larger host pages than the host's own (hugetlbfs). */
  readonly hostPageBytes?: number;
}

export interface RamSection {
  readonly sectionId: number;
  readonly blocks: readonly RamBlock[];
}

/** A block's name as str8: a length byte and the name. */
export function encodeBlockName(name: string): Buffer {
  const bytes = Buffer.from(name, NAME_ENCODING);
  assert(bytes.length >= 1 && bytes.length <= NAME_BYTES_MAX, "a block name has 1 to 255 bytes");
  return Buffer.concat([Buffer.of(bytes.length), bytes]);
}
