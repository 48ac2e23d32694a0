// Raw disk images for guests: sparse, with as much data in them as a test wants. The data compresses
// to half, as what the guest itself writes does, and is the same for the same seed.

import { createCipheriv } from "node:crypto";
import { open } from "node:fs/promises";
import { assert } from "@vmferry/core";

export interface DiskImageContent {
  /** The share of the image that holds data, spread over all of it; the rest are holes. */
  readonly fill?: number;
  readonly seed?: number;
}

/** Data and holes alternate in pieces of this size. */
const PIECE_BYTES = 2 ** 20;
/** Of each 64 bytes, half are noise. */
const CELL_WORDS = 16;
const REGULAR_WORDS = CELL_WORDS / 2;

/** Makes the image; a file of that name is replaced. */
export async function writeDiskImage(
  path: string,
  sizeBytes: number,
  { fill = 0, seed = 1 }: DiskImageContent = {},
): Promise<void> {
  assert(fill >= 0 && fill <= 1, "a share is from 0 to 1");
  const file = await open(path, "w", 0o600);
  try {
    await file.truncate(sizeBytes);
    const pieces = Math.ceil(sizeBytes / PIECE_BYTES);
    for (let piece = 0; piece < pieces; piece++) {
      if (Math.floor((piece + 1) * fill) === Math.floor(piece * fill)) continue;
      const offset = piece * PIECE_BYTES;
      const bytes = Math.min(PIECE_BYTES, sizeBytes - offset);
      await file.write(halfNoise(seed, piece), 0, bytes, offset);
    }
    // Or the guest's first flush would wait for all of it.
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** A cipher's key stream is the fastest seeded noise that Node has. */
function halfNoise(seed: number, piece: number): Buffer {
  const key = Buffer.alloc(16);
  key.writeDoubleBE(seed);
  const counter = Buffer.alloc(16);
  counter.writeUInt32BE(piece);
  const cipher = createCipheriv("aes-128-ctr", key, counter);
  const noise = cipher.update(Buffer.alloc(PIECE_BYTES));
  const words = new Uint32Array(noise.buffer, noise.byteOffset, PIECE_BYTES / 4);
  for (let cell = 0; cell < words.length; cell += CELL_WORDS) {
    words.fill(piece, cell, cell + REGULAR_WORDS);
  }
  return noise;
}
