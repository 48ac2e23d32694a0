/**
 * What the source may have under way. Credit goes back when a frame's content is where it belongs
 * (QEMU, or an image), so what is buffered here stays within the credit given, and a slow QEMU or a
 * slow disk slows the source.
 */
import { violation } from "@vmferry/protocol";

/** Credit is returned in pieces of at least this much while there is more to do. */
const CREDIT_BYTES_MIN = 512 * 1024;

export class CreditLedger {
  readonly #creditBytesMax: number;
  readonly #onCredit: (bytes: number) => void;
  /** Arrived, and not given back yet. */
  #owedBytes = 0;
  /** Of them, what is done. */
  #doneBytes = 0;

  constructor(creditBytesMax: number, onCredit: (bytes: number) => void) {
    this.#creditBytesMax = creditBytesMax;
    this.#onCredit = onCredit;
  }

  /** A frame has arrived. */
  owe(bytes: number): void {
    this.#owedBytes += bytes;
    if (this.#owedBytes > this.#creditBytesMax) throw violation("credit exceeded");
  }

  /** A frame's content is where it belongs. */
  done(bytes: number): void {
    this.#doneBytes += bytes;
    const all = this.#doneBytes === this.#owedBytes;
    if (!all && this.#doneBytes < CREDIT_BYTES_MIN) return;
    const returned = this.#doneBytes;
    this.#owedBytes -= returned;
    this.#doneBytes = 0;
    this.#onCredit(returned);
  }
}
