import type { Socket } from "node:net";

/** Where a stream for QEMU goes. */
export interface StreamSink {
  /** Resolves when there is room for more; `done` is called when the bytes may be reused. */
  write(bytes: Uint8Array, done: () => void): Promise<void>;
}

const OUTSTANDING_BYTES_MAX = 2 * 1024 * 1024;
/** In post-copy what is under way to QEMU is in the way of a page that a vCPU waits for. */
export const POSTCOPY_OUTSTANDING_BYTES_MAX = 256 * 1024;

/**
 * Writes into QEMU's incoming socket. `write` resolves when there is room for more, so whoever
 * awaits it never has more than a few frames buffered; `done` is called when the kernel has them.
 */
export class QemuSink implements StreamSink {
  readonly #socket: Socket;
  /** What may be under way to QEMU before whoever writes has to wait. */
  outstandingBytesMax = OUTSTANDING_BYTES_MAX;
  #outstandingBytes = 0;
  #waiting: (() => void)[] = [];
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
      for (const wake of this.#waiting.splice(0)) wake();
    });
    while (this.#outstandingBytes > this.outstandingBytesMax) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
      this.#throwIfFailed();
    }
  }

  #throwIfFailed(): void {
    if (this.#failed !== null) throw this.#failed;
  }
}
