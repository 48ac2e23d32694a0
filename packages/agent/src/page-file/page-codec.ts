/**
 * A page as it is sealed: its bytes as they are, or one zstd frame with its length in front and
 * zeros behind, where that is at least an eighth shorter.
 */
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { ALIGNMENT_BYTES, PAGE_BYTES } from "./page-file-limits.ts";

const LENGTH_BYTES = 2;
const WORTH_BYTES_MAX = PAGE_BYTES - PAGE_BYTES / 8;
const WINDOW_LOG = 12;
const COMPRESS = {
  params: {
    [constants.ZSTD_c_compressionLevel]: 1,
    [constants.ZSTD_c_windowLog]: WINDOW_LOG,
  },
};
const INFLATE = {
  // The output is limited before it is made: a small frame cannot become a large one.
  maxOutputLength: PAGE_BYTES,
  chunkSize: PAGE_BYTES,
  params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG },
  info: true,
};

/** What zlib returns with `info`; its types leave that out. */
interface Inflated {
  readonly buffer: Buffer;
  /** `bytesWritten`: what it consumed. */
  readonly engine: { readonly bytesWritten: number };
}

/** The page itself where compressing it is not worth it. */
export function packPage(page: Uint8Array): Uint8Array {
  const frame = zstdCompressSync(page, COMPRESS);
  const bytes = Math.ceil((LENGTH_BYTES + frame.length) / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  if (bytes > WORTH_BYTES_MAX) return page;
  const packed = Buffer.alloc(bytes);
  packed.writeUInt16BE(frame.length);
  packed.set(frame, LENGTH_BYTES);
  return packed;
}

/** Null for what is no packed page. */
export function unpackPage(stored: Buffer): Buffer | null {
  if (stored.length === PAGE_BYTES) return stored;
  const end = LENGTH_BYTES + stored.readUInt16BE();
  const padding = stored.subarray(end);
  if (end > stored.length || padding.length >= ALIGNMENT_BYTES) return null;
  if (padding.some((byte) => byte !== 0)) return null;
  try {
    const frame = stored.subarray(LENGTH_BYTES, end);
    const { buffer, engine } = zstdDecompressSync(frame, INFLATE) as unknown as Inflated;
    return buffer.length === PAGE_BYTES && engine.bytesWritten === frame.length ? buffer : null;
  } catch {
    // No frame, or one of more than a page.
    return null;
  }
}
