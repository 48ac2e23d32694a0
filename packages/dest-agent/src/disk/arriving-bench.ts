/** For tests: a disk that arrives, with an image, a mark and a clock that do as they are told. */
import { zstdCompressSync } from "node:zlib";
import { DiskHashes, ManualClock } from "@vmferry/agent";
import {
  DiskOperation,
  FrameEncoding,
  FrameKind,
  limits,
  openFrame,
  putExtent,
  sealFrame,
} from "@vmferry/protocol";
import type { ArrivedFrame } from "../bulk/bulk-receiver.ts";
import { ArrivingDisk } from "./arriving-disk.ts";
import { HeldImage } from "./held-image.ts";

const { EXTENT_BYTES, FRAME_HEADER_BYTES } = limits;
const HASH_SEED = "0123456789abcdef";
export const UNIT_BYTES = 4096;

/** Data, or how many zeros. */
export type Part =
  | { readonly at: number; readonly data: Buffer }
  | { readonly at: number; readonly zero: number }
  | { readonly at: number; readonly trim: number };

export interface FrameOptions {
  readonly zstd?: boolean;
  readonly disk?: number;
  readonly connection?: number;
  readonly done?: () => void;
}

/** A frame as the bulk receiver hands it on. */
export function frameOf(parts: readonly Part[], options: FrameOptions = {}): ArrivedFrame {
  const { zstd = false, disk = 0, connection = 0, done = () => undefined } = options;
  const datas = parts.flatMap((part) => ("data" in part ? [part.data] : []));
  const data = zstd ? zstdCompressSync(Buffer.concat(datas)) : Buffer.concat(datas);
  const head = Buffer.alloc(FRAME_HEADER_BYTES + parts.length * EXTENT_BYTES);
  for (const [index, part] of parts.entries()) {
    putExtent(head, { frameStart: 0, index }, extentOf(part));
  }
  const frame = Buffer.concat([head, data]);
  sealFrame(frame, {
    kind: FrameKind.DISK,
    encoding: zstd ? FrameEncoding.ZSTD : FrameEncoding.RAW,
    pass: 0,
    sequence: 0,
    block: disk,
    runs: parts.length,
  });
  return { connection, header: openFrame(frame), frame, done };
}

function extentOf(part: Part): { operation: DiskOperation; offset: number; length: number } {
  if ("data" in part) {
    return { operation: DiskOperation.DATA, offset: part.at, length: part.data.length };
  }
  return "zero" in part
    ? { operation: DiskOperation.ZERO, offset: part.at, length: part.zero }
    : { operation: DiskOperation.TRIM, offset: part.at, length: part.trim };
}

export interface MarkUpdate {
  /** One character a bit, those behind the last unit included. */
  readonly bits: string;
  readonly state: string;
  /** Of the image's log, when it was made. */
  readonly after: readonly string[];
}

export class ArrivingBench {
  readonly clock = new ManualClock();
  readonly image: HeldImage;
  readonly marks: MarkUpdate[] = [];
  readonly failures: unknown[] = [];
  readonly disk: ArrivingDisk;
  markFailure: Error | null = null;
  #returned = 0;

  constructor(options: { readonly sizeBytes?: number; readonly compression?: boolean } = {}) {
    const { sizeBytes = 10 * UNIT_BYTES, compression = true } = options;
    this.image = new HeldImage(sizeBytes);
    this.disk = new ArrivingDisk({
      id: "disk0",
      image: this.image,
      mark: {
        update: ({ bitmap, state }) => {
          const bits = Array.from({ length: bitmap.length * 8 }, (_, bit) =>
            ((bitmap[bit >>> 3]! >>> (bit & 7)) & 1).toString(),
          ).join("");
          this.marks.push({ bits, state, after: [...this.image.log] });
          return this.markFailure === null ? Promise.resolve() : Promise.reject(this.markFailure);
        },
      },
      hashes: this.newHashes(),
      compression,
      clock: this.clock,
      onFailed: (error) => {
        this.failures.push(error);
      },
    });
  }

  /** Frames whose credit went back. */
  get returned(): number {
    return this.#returned;
  }

  newHashes(): DiskHashes {
    const { sizeBytes } = this.image;
    return new DiskHashes({ sizeBytes, unitBytes: UNIT_BYTES, seedHex: HASH_SEED });
  }

  /** The digest of what the image holds, the obvious way. */
  naiveDigest(): string {
    const hashes = this.newHashes();
    for (let unit = 0; unit < hashes.units; unit++) {
      const start = unit * UNIT_BYTES;
      const content = this.image.content.subarray(start, start + hashes.lengthOf(unit));
      hashes.set(unit, hashes.hash(content));
    }
    return hashes.digest();
  }

  arrive(parts: readonly Part[], options: FrameOptions = {}): void {
    const done = (): void => {
      this.#returned++;
    };
    this.disk.arrived(frameOf(parts, { ...options, done }));
  }

  /** Lets time pass in small steps, and what it brings about take its course. */
  async pass(ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += 100) {
      this.clock.advance(Math.min(100, ms - passed));
      await settle();
    }
  }
}

/** Everything that can go on without the test has gone on. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 10; i++) {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
}

/** Bytes that differ with `salt`, and are not zero. */
export function bytesOf(length: number, salt = 1): Buffer {
  return Buffer.alloc(length, `${salt}.`);
}
