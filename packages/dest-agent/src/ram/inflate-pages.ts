import { constants, zstdDecompressSync } from "node:zlib";
import { limits, violation } from "@vmferry/protocol";

/** A window of 1 MiB is four frames: nothing that a source sends needs more. */
const WINDOW_LOG_MAX = 20;

/**
 * Decompresses the data of one PAGES frame. The output is limited before it is made, so a small
 * frame cannot become a large one.
 *
 * @throws ProtocolError when it is not exactly `pages` pages
 */
export function inflatePages(compressed: Buffer, pages: number): Buffer {
  const bytes = pages * limits.PAGE_BYTES;
  if (bytes === 0) throw violation("compressed frame without data pages");
  const options = {
    maxOutputLength: bytes,
    // The whole output at once, instead of pieces that are copied together.
    chunkSize: bytes,
    params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX },
    info: true,
  };
  let result: Inflated;
  try {
    result = zstdDecompressSync(compressed, options) as unknown as Inflated;
  } catch (error) {
    throw violation("compressed frame data", error);
  }
  if (result.buffer.length !== bytes) throw violation("compressed frame of another length");
  if (result.engine.bytesWritten !== compressed.length) throw violation("bytes behind the data");
  return result.buffer;
}

/** What zlib returns with `info`; its types leave that out. */
interface Inflated {
  readonly buffer: Buffer;
  /** `bytesWritten`: what it consumed. */
  readonly engine: { readonly bytesWritten: number };
}
