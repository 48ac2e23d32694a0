import type { RamBlock } from "./ram-block.ts";
import { RamRecordDecoder, type RamRecordHandler } from "./ram-record-decoder.ts";
import { StreamError, unexpectedRecord } from "./stream-error.ts";

/**
 * Decodes the second connection of a source QEMU with `postcopy-preempt`: pages that the dest asked
 * for, as bare RAM records with a block memory of their own. From QEMU 8.0 on it ends by being
 * closed; 7.2 writes EOS first. One that threw has failed for good.
 */
export class PreemptDecoder {
  readonly #ram: RamRecordDecoder;
  #failure: { readonly cause: unknown } | null = null;

  /** @param blocks as the first connection announced them */
  constructor(blocks: readonly RamBlock[], handler: RamRecordHandler) {
    this.#ram = new RamRecordDecoder(blocks, handler);
  }

  push(chunk: Buffer): void {
    if (this.#failure !== null) throw this.#failure.cause;
    try {
      if (this.#ram.decode(chunk, 0) < chunk.length) throw unexpectedRecord("a record behind EOS");
    } catch (cause) {
      this.#failure = { cause };
      throw cause;
    }
  }

  /** The connection was closed: fine between two records. */
  end(): void {
    if (this.#failure !== null) throw this.#failure.cause;
    if (this.#ram.atBoundary) return;
    throw new StreamError("the connection for requested pages was closed inside a page", {
      code: "stream-truncated",
      phase: "post-copy",
    });
  }
}
