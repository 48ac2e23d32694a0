import { unzstdInto } from "@vmferry/agent";
import { assert } from "@vmferry/core";
import { limits, violation } from "@vmferry/protocol";

const { FRAME_DISK_BYTES_MAX, FRAME_PAGES_MAX, PAGE_BYTES } = limits;
const DATA_BYTES_MAX = Math.max(FRAME_PAGES_MAX * PAGE_BYTES, FRAME_DISK_BYTES_MAX);
/** Four frames: nothing that a source sends needs more. */
const WINDOW_BYTES_MAX = 1024 * 1024;

/**
 * Decompresses the data of one frame into `output`, which it has to fill: so a small frame cannot
 * become a large one.
 *
 * @throws ProtocolError when it is anything else
 */
export function inflateData(compressed: Buffer, output: Buffer): void {
  if (output.length === 0) throw violation("compressed frame without data");
  if (!unzstdInto(output, compressed, { windowBytesMax: WINDOW_BYTES_MAX })) {
    throw violation("compressed frame data");
  }
}

/** The data of one frame after another, each in the place of the one before. */
export class Inflater {
  #place: Buffer | null = null;

  /** The data, until the next call; `bytes` is what a frame may have of them, at most. Throws as `inflateData`. */
  inflate(compressed: Buffer, bytes: number): Buffer {
    assert(bytes <= DATA_BYTES_MAX, "no table of a frame has more");
    this.#place ??= Buffer.allocUnsafeSlow(DATA_BYTES_MAX);
    const data = this.#place.subarray(0, bytes);
    inflateData(compressed, data);
    return data;
  }
}
