import { constants, zstdDecompressSync } from "node:zlib";
import { violation } from "@vmferry/protocol";

/** A window of 1 MiB is four frames: nothing that a source sends needs more. */
const WINDOW_LOG_MAX = 20;
/** What zlib asks for at least. */
const CHUNK_BYTES_MIN = 64;

/**
 * Decompresses the data of one frame. The output is limited before it is made, so a small frame
 * cannot become a large one.
 *
 * @throws ProtocolError when it is not exactly `bytes` bytes
 */
export function inflateData(compressed: Buffer, bytes: number): Buffer {
  if (bytes === 0) throw violation("compressed frame without data");
  const options = {
    maxOutputLength: bytes,
    // The whole output at once, instead of pieces that are copied together.
    chunkSize: Math.max(CHUNK_BYTES_MIN, bytes),
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
