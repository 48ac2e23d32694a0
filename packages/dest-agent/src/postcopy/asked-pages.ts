/**
 * Pages on their way into QEMU by the channel that it has for pages that it has asked for: bare
 * records, one after another, and no section around them.
 */
import { PAGE_BYTES, RamEncoder, type RamSection } from "@vmferry/qemu";
import type { StreamSink } from "../ram/qemu-sink.ts";

/** More are not kept for the next ones. */
const POOL_MAX = 64;

interface AskedPage {
  readonly buffer: Buffer;
  readonly bytes: Buffer;
}

export class AskedPages {
  readonly #sink: StreamSink;
  /** The channel is a connection of its own. */
  readonly #encoder: RamEncoder;
  readonly #pool: Buffer[] = [];
  #collected: AskedPage[] = [];

  constructor(section: RamSection, sink: StreamSink) {
    this.#sink = sink;
    this.#encoder = new RamEncoder(section);
  }

  /** Takes one page from data[offset] and returns its place, which holds it until the next `flush`. */
  add(block: number, page: number, data: Buffer, offset: number): Buffer {
    const buffer = this.#pool.pop() ?? this.#newBuffer();
    const start = this.#encoder.pageHeader(buffer, 0, block, page);
    const end = start + PAGE_BYTES;
    data.copy(buffer, start, offset, offset + PAGE_BYTES);
    this.#collected.push({ buffer, bytes: buffer.subarray(0, end) });
    return buffer.subarray(start, end);
  }

  addZero(block: number, page: number): void {
    const buffer = this.#pool.pop() ?? this.#newBuffer();
    const end = this.#encoder.zeroPage(buffer, 0, block, page);
    this.#collected.push({ buffer, bytes: buffer.subarray(0, end) });
  }

  /** Hands QEMU what was collected. Resolves when there is room for more. */
  async flush(): Promise<void> {
    const collected = this.#collected;
    if (collected.length === 0) return;
    this.#collected = [];
    await Promise.all(
      collected.map(({ buffer, bytes }) =>
        this.#sink.write(bytes, () => {
          if (this.#pool.length < POOL_MAX) this.#pool.push(buffer);
        }),
      ),
    );
  }

  #newBuffer(): Buffer {
    return Buffer.allocUnsafeSlow(this.#encoder.pageHeaderBytesMax + PAGE_BYTES);
  }
}
