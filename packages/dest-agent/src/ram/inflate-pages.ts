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
  let data: Buffer;
  try {
    data = zstdDecompressSync(compressed, {
      maxOutputLength: bytes,
      params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX },
    });
  } catch (error) {
    throw violation("compressed frame data", error);
  }
  if (data.length !== bytes) throw violation("compressed frame of another length");
  return data;
}
