/**
 * Runs of zero pages on their way into QEMU as sections of zero records, 9 bytes a page. A run may
 * be as long as the guest's memory, so it is written in pieces.
 */
import type { RamEncoder } from "@vmferry/qemu";
import type { StreamSink } from "./qemu-sink.ts";

const BUFFER_BYTES = 64 * 1024;
/** Room for a section header, a record that names its block, and the section's end. */
const RESERVE_BYTES = 512;

interface ZeroRun {
  readonly block: number;
  readonly first: number;
  readonly pages: number;
}

export class ZeroFeed {
  readonly #encoder: RamEncoder;
  readonly #runs: ZeroRun[] = [];

  constructor(encoder: RamEncoder) {
    this.#encoder = encoder;
  }

  /** At most one frame's runs are collected between two calls of `write`. */
  add(block: number, first: number, pages: number): void {
    this.#runs.push({ block, first, pages });
  }

  async write(sink: StreamSink): Promise<void> {
    if (this.#runs.length === 0) return;
    let out = Buffer.allocUnsafe(BUFFER_BYTES);
    let end = this.#begin(out);
    for (const { block, first, pages } of this.#runs) {
      for (let page = first; page < first + pages; page++) {
        end = this.#encoder.zeroPage(out, end, block, page);
        if (end <= BUFFER_BYTES - RESERVE_BYTES) continue;
        await sink.write(out.subarray(0, this.#encoder.endPart(out, end)), () => undefined);
        out = Buffer.allocUnsafe(BUFFER_BYTES);
        end = this.#begin(out);
      }
    }
    this.#runs.length = 0;
    await sink.write(out.subarray(0, this.#encoder.endPart(out, end)), () => undefined);
  }

  #begin(out: Buffer): number {
    this.#encoder.forgetBlock();
    return this.#encoder.beginPart(out, 0);
  }
}
