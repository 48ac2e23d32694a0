/**
 * Where the device state of an ordinary migration ends. Device sections have no length; behind them
 * come EOF and, unless the machine type suppresses it, a description of them in JSON:
 *
 *   *FULL  EOF  VMDESC be32 length  length * byte JSON
 *
 * So device state is complete when what has come ends exactly with a description that is one. Until
 * then, and for ever where there is none, the end is not known. What a device saves may look like
 * such an end, but only if it ends where a chunk does; the dest's QEMU refuses what was cut short.
 */
import { FOOTER_BYTES, RECORD } from "./stream-format.ts";
import { checkLimit } from "./stream-limits.ts";

/** EOF, VMDESC and the length of the JSON. */
const HEAD_BYTES = 6;
const DESCRIPTION_BYTES_MAX = 8 * 2 ** 20;
/** Places that may be the end; QEMU's own stream has one or two. */
const CANDIDATES_MAX = 1024;
const BUFFER_BYTES_MIN = 256 * 1024;
const HEAD = Buffer.of(RECORD.EOF, RECORD.VMDESC);
const BRACE = 0x7b;

export class DeviceStateTail {
  readonly #bytesMax: number;
  #bytes = Buffer.alloc(BUFFER_BYTES_MIN);
  #filled = 0;
  /** Up to here every place was looked at. */
  #searched = 0;
  /** Where EOF stands, of descriptions that would end behind what has come. */
  #candidates: number[] = [];
  #deviceBytes: number | null = null;

  /** @param bytesMax of device state; the description may come on top of it */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** So many bytes, from the first on, are device sections; null while the end is not known. */
  get deviceBytes(): number | null {
    return this.#deviceBytes;
  }

  /** All that has come: a view, valid until the next `push`. */
  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#filled);
  }

  /**
   * Takes what follows END of ram, as it comes; throws `stream-over-limit` where that is more than
   * any device state may be.
   */
  push(chunk: Uint8Array): void {
    this.#append(chunk);
    this.#search();
    this.#deviceBytes = null;
    const open: number[] = [];
    for (const at of this.#candidates) {
      const end = this.#endOf(at);
      if (end > this.#filled) open.push(at);
      else if (end === this.#filled && at <= this.#bytesMax && this.#isDescription(at, end)) {
        this.#deviceBytes ??= at;
      }
    }
    this.#candidates = open;
    const isDescribed = this.#deviceBytes !== null || open.length > 0;
    if (!isDescribed) checkLimit("device state", this.#filled, this.#bytesMax + HEAD_BYTES);
  }

  #append(chunk: Uint8Array): void {
    const filled = this.#filled + chunk.length;
    checkLimit("device state", filled, this.#bytesMax + HEAD_BYTES + DESCRIPTION_BYTES_MAX);
    if (filled > this.#bytes.length) {
      const grown = Buffer.alloc(2 ** Math.ceil(Math.log2(filled)));
      this.#bytes.copy(grown, 0, 0, this.#filled);
      this.#bytes = grown;
    }
    this.#bytes.set(chunk, this.#filled);
    this.#filled = filled;
  }

  /** Notes every place that may be EOF with a description behind it. */
  #search(): void {
    const { bytes } = this;
    // The first byte of the JSON is looked at as well.
    while (this.#searched + HEAD_BYTES < this.#filled) {
      const at = bytes.indexOf(HEAD, this.#searched);
      if (at === -1 || at + HEAD_BYTES >= this.#filled) {
        this.#searched = at === -1 ? Math.max(this.#searched, this.#filled - 1) : at;
        return;
      }
      this.#searched = at + 1;
      const length = bytes.readUInt32BE(at + HEAD.length);
      const isHead =
        at >= FOOTER_BYTES &&
        bytes[at - FOOTER_BYTES] === RECORD.FOOTER &&
        bytes[at + HEAD_BYTES] === BRACE &&
        length <= DESCRIPTION_BYTES_MAX;
      if (isHead && this.#candidates.length < CANDIDATES_MAX) this.#candidates.push(at);
    }
  }

  #endOf(at: number): number {
    return at + HEAD_BYTES + this.#bytes.readUInt32BE(at + HEAD.length);
  }

  #isDescription(at: number, end: number): boolean {
    let value: unknown;
    try {
      value = JSON.parse(this.#bytes.toString("utf8", at + HEAD_BYTES, end));
    } catch {
      return false; // Bytes of a device that look like the head of one.
    }
    const devices = (value as { readonly devices?: unknown } | null)?.devices;
    return Array.isArray(devices) && devices.length > 0;
  }
}
