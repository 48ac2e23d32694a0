// QEMU ends each message with CR LF and sends nothing else between messages, so that a session is
// a sequence of lines. QEMU may be under the control of its guest: a line is bounded before it is
// kept, has to be valid UTF-8, and has to be one JSON object.

import { QmpError } from "./qmp-error.ts";

/** Bytes of one line without its line feed. The longest reply that is used, `query-machines`, is below 64 KiB. */
export const QMP_LINE_BYTES_MAX = 1024 * 1024;

const LINE_FEED = 0x0a;
const BACKLOG_BYTES_MIN = 4096;

/** A JSON object whose members have not been checked yet. */
export type UncheckedObject = Readonly<Record<string, unknown>>;

export class QmpLineReader {
  // `ignoreBOM` keeps a byte order mark in the text, where JSON.parse refuses it.
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  // A copy of the unfinished line. Keeping the chunks themselves would let a peer that sends
  // single bytes hold far more memory than the limit on a line says.
  #backlog = Buffer.alloc(BACKLOG_BYTES_MIN);
  #backlogBytes = 0;

  /** Bytes of the line that has begun and not ended. */
  get backlogBytes(): number {
    return this.#backlogBytes;
  }

  /**
   * Calls `onMessage` for each message that ends in `chunk`, in order. Throws `qmp-malformed` or
   * `qmp-line-too-long` after the messages before the fault; the reader is of no use afterwards.
   */
  push(chunk: Uint8Array, onMessage: (message: UncheckedObject) => void): void {
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(LINE_FEED, start);
      if (end === -1) break;
      const tail = chunk.subarray(start, end);
      start = end + 1;
      if (this.#backlogBytes === 0) {
        refuseLongLine(tail.length);
        onMessage(this.#parse(tail));
        continue;
      }
      this.#append(tail);
      const line = this.#backlog.subarray(0, this.#backlogBytes);
      this.#backlogBytes = 0;
      onMessage(this.#parse(line));
    }
    if (start < chunk.length) this.#append(chunk.subarray(start));
  }

  #append(part: Uint8Array): void {
    const bytes = this.#backlogBytes + part.length;
    refuseLongLine(bytes);
    if (bytes > this.#backlog.length) {
      const grown = Buffer.alloc(Math.min(QMP_LINE_BYTES_MAX, Math.max(bytes, bytes * 2)));
      this.#backlog.copy(grown, 0, 0, this.#backlogBytes);
      this.#backlog = grown;
    }
    this.#backlog.set(part, this.#backlogBytes);
    this.#backlogBytes = bytes;
  }

  #parse(line: Uint8Array): UncheckedObject {
    let value: unknown;
    try {
      value = JSON.parse(this.#decoder.decode(line));
    } catch (cause) {
      const reason = cause instanceof SyntaxError ? "not JSON" : "not UTF-8";
      throw malformed(reason, cause);
    }
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw malformed("not a JSON object");
    }
    return value as UncheckedObject;
  }
}

function refuseLongLine(bytes: number): void {
  if (bytes <= QMP_LINE_BYTES_MAX) return;
  throw new QmpError(`QEMU sent a QMP line of more than ${QMP_LINE_BYTES_MAX} bytes`, {
    code: "qmp-line-too-long",
    bytesMax: QMP_LINE_BYTES_MAX,
  });
}

function malformed(reason: string, cause?: unknown): QmpError {
  return new QmpError(
    `QEMU sent a QMP line that is ${reason}`,
    { code: "qmp-malformed", reason },
    {
      cause,
    },
  );
}
