/**
 * A guest that uses a disk, and a naive twin of what the disk has to hold: every acknowledged write
 * in the order of the acknowledgements. A range whose write failed may hold anything until it is
 * written again.
 */
import { expect } from "vitest";
import { BlockError, type BlockDevice } from "@vmferry/block";

export interface GuestRequest {
  readonly kind: "write" | "zero" | "punch" | "trim" | "flush" | "read";
  readonly offset: number;
  readonly length: number;
}

interface Range {
  readonly offset: number;
  readonly length: number;
}

export class GuestOfDisk {
  readonly #device: BlockDevice;
  readonly #twin: Buffer;
  readonly #isKnown: Buffer;
  readonly #changing = new Set<Range>();
  readonly #reading = new Set<{ readonly range: Range; disturbed: boolean }>();
  #writes = 0;
  underWay = 0;
  failed = 0;

  constructor(device: BlockDevice, content: Buffer) {
    this.#device = device;
    this.#twin = Buffer.from(content);
    this.#isKnown = Buffer.alloc(content.length, 1);
  }

  /** Resolves when the request has its answer; rejects when that is none that a disk may give. */
  async perform(request: GuestRequest): Promise<void> {
    this.underWay++;
    try {
      if (request.kind === "read") await this.#read(request);
      else if (request.kind === "flush") await this.#device.flush();
      else await this.#change(request);
    } finally {
      this.underWay--;
    }
  }

  /** The first byte that is not what the guest has a right to, or null. */
  firstWrong(content: Buffer, { offset, length }: Range): number | null {
    for (let at = offset; at < offset + length; at++) {
      if (this.#isKnown[at] === 1 && this.#twin[at] !== content[at - offset]) return at;
    }
    return null;
  }

  async #change({ kind, offset, length }: GuestRequest): Promise<void> {
    const range = { offset, length };
    const data = Buffer.alloc(length, `${++this.#writes}.`);
    this.#changing.add(range);
    for (const read of this.#reading) read.disturbed ||= overlap(read.range, range);
    try {
      if (kind === "write") await this.#device.write(offset, data);
      else if (kind === "trim") await this.#device.trim(offset, length);
      else await this.#device.writeZeroes(offset, length, { mayPunch: kind === "punch" });
      if (kind === "write") data.copy(this.#twin, offset);
      else this.#twin.fill(0, offset, offset + length);
      this.#isKnown.fill(1, offset, offset + length);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.failed++;
      this.#isKnown.fill(0, offset, offset + length);
    } finally {
      this.#changing.delete(range);
    }
  }

  async #read({ offset, length }: GuestRequest): Promise<void> {
    const range = { offset, length };
    const disturbed = [...this.#changing].some((change) => overlap(change, range));
    const reading = { range, disturbed };
    this.#reading.add(reading);
    const content = await this.#device.read(offset, length);
    this.#reading.delete(reading);
    if (!reading.disturbed) expect(this.firstWrong(content, range)).toBe(null);
  }
}

function overlap(a: Range, b: Range): boolean {
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}
