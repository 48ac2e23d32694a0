import type { Socket } from "node:net";

/** Where a stream for QEMU goes. */
export interface StreamSink {
  /** Resolves when there is room for more; `done` is called when the bytes may be reused. */
  write(bytes: Uint8Array, done: () => void): Promise<void>;
}

const OUTSTANDING_BYTES_MAX = 2 * 1024 * 1024;

/**
 * Writes into QEMU's incoming socket. `write` resolves when there is room for more, so whoever
 * awaits it never has more than a few frames buffered; `done` is called when the kernel has them.
 */
export class QemuSink implements StreamSink {
  readonly #socket: Socket;
  #outstandingBytes = 0;
  #wake: (() => void) | null = null;
  #failed: Error | null = null;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  async write(bytes: Uint8Array, done: () => void): Promise<void> {
    this.#throwIfFailed();
    this.#outstandingBytes += bytes.length;
    this.#socket.write(bytes, (error) => {
      this.#outstandingBytes -= bytes.length;
      if (error) this.#failed = error;
      else done();
      this.#wake?.();
    });
    while (this.#outstandingBytes > OUTSTANDING_BYTES_MAX) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = null;
      this.#throwIfFailed();
    }
  }

  #throwIfFailed(): void {
    if (this.#failed !== null) throw this.#failed;
  }
}
