/**
 * zstd at level 1 for data that must neither wait nor leave garbage: the library that Node itself
 * is linked with, called with contexts and buffers that are used again. `node:zlib` makes a context
 * and buffers for each call, and V8 collects its whole heap for them: more than the compressing costs
 * (docs/decisions/0037).
 */
import koffi from "koffi";
import { assert } from "@vmferry/core";

const LEVEL = 1;
/** ZSTD_cParameter: part of the library's stable interface, as are the error codes below. */
const COMPRESSION_LEVEL = 100;
const ERROR_DST_SIZE_TOO_SMALL = 70;
/** RFC 8878, 3.1.1, little-endian. Older formats, which some libraries read as well, have others. */
const MAGIC = 0xfd2f_b528;
const MAGIC_BYTES = 4;
const WINDOW_LOG_BASE = 10;
const SINGLE_SEGMENT = 0x20;

type Context = unknown;
/** A number of bytes; what is no safe integer is an error code, counted down from 2^64. */
type Size = number | bigint;

// Without a name: the process itself, which has the library in it or loaded.
const library = koffi.load(null);
const createCompressor = library.func("void *ZSTD_createCCtx()") as () => Context;
const setParameter = library.func("size_t ZSTD_CCtx_setParameter(void *, int, int)");
const compress2 = library.func("size_t ZSTD_compress2(void *, void *, size_t, void *, size_t)");
const createDecompressor = library.func("void *ZSTD_createDCtx()") as () => Context;
const decompress = library.func(
  "size_t ZSTD_decompressDCtx(void *, void *, size_t, void *, size_t)",
);
const frameBytes = library.func("size_t ZSTD_findFrameCompressedSize(void *, size_t)");

/** Those that nobody uses just now: as many as there were ever compressions at once. */
const idleCompressors: Context[] = [];
let decompressor: Context = null;

/**
 * Compresses `input` in the thread pool into the beginning of `output`, and resolves with how many
 * bytes it became; with null where `output` has no room for them. Neither may change meanwhile.
 */
export async function zstdInto(output: Buffer, input: Buffer): Promise<number | null> {
  const context = idleCompressors.pop() ?? newCompressor();
  try {
    const size = await new Promise<Size>((resolve, reject) => {
      const done = (error: Error | null, result: Size): void => {
        if (error === null) resolve(result);
        else reject(error);
      };
      compress2.async(context, output, output.length, input, input.length, done);
    });
    const code = errorCode(size);
    if (code === ERROR_DST_SIZE_TOO_SMALL) return null;
    assert(code === null, `zstd compresses: it said ${code}`);
    return Number(size);
  } finally {
    idleCompressors.push(context);
  }
}

/**
 * Decompresses one frame, which must be all of `input`, and fill `output` exactly; false where it is
 * not so. No more than `output` is ever written to, and no memory taken that the frame asks for.
 *
 * @param windowBytesMax a frame with a larger window is refused
 */
export function unzstdInto(
  output: Buffer,
  input: Buffer,
  { windowBytesMax }: { readonly windowBytesMax: number },
): boolean {
  if (input.length <= MAGIC_BYTES || input.readUInt32LE(0) !== MAGIC) return false;
  if (windowBytesOf(input) > windowBytesMax) return false;
  if (frameBytes(input, input.length) !== input.length) return false;
  decompressor ??= createDecompressor();
  assert(decompressor !== null, "there is memory for a decompressor");
  return decompress(decompressor, output, output.length, input, input.length) === output.length;
}

/** 0 where the frame has none: a single segment, which is its own window. */
function windowBytesOf(frame: Buffer): number {
  const descriptor = frame[MAGIC_BYTES] ?? 0;
  if ((descriptor & SINGLE_SEGMENT) !== 0) return 0;
  const window = frame[MAGIC_BYTES + 1] ?? 0;
  const base = 2 ** (WINDOW_LOG_BASE + (window >>> 3));
  return base + (base / 8) * (window & 7);
}

function newCompressor(): Context {
  const context = createCompressor();
  assert(context !== null, "there is memory for a compressor");
  const code = errorCode(setParameter(context, COMPRESSION_LEVEL, LEVEL) as Size);
  assert(code === null, `zstd has its level 1: it said ${code}`);
  return context;
}

function errorCode(size: Size): number | null {
  return typeof size === "bigint" ? Number(2n ** 64n - size) : null;
}
