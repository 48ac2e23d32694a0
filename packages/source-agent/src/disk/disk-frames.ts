/**
 * DISK frames of one disk under construction. Data is copied once, to its place in the frame; the
 * extent table is written right in front of it when the frame is sealed:
 *
 *   [ head-room: header + extent table, right-aligned ][ data of the extents, one behind another ]
 *
 * What is added is in order, and leaves in order. A frame that is not full is flushed at the end of
 * the turn of the event loop, so that writes which come together travel together.
 */
import {
  DiskOperation,
  FrameEncoding,
  FrameKind,
  limits,
  putExtent,
  type DiskExtent,
} from "@vmferry/protocol";
import type { OutboundEntry } from "../transport/bulk-sender.ts";

const {
  EXTENT_BYTES,
  EXTENT_LENGTH_MAX,
  FRAME_DISK_BYTES_MAX,
  FRAME_EXTENTS_MAX,
  FRAME_HEADER_BYTES,
} = limits;
const HEADROOM_BYTES = FRAME_HEADER_BYTES + FRAME_EXTENTS_MAX * EXTENT_BYTES;
/** Buffers kept for the next frames: of a link of 250 MB a second. More may be under way for a moment. */
const POOL_MAX = 40;
/** A frame up to this size gets a buffer of its own: thousands may wait for a slow link. */
const SMALL_BYTES = 32 * 1024;

export interface FrameQueue {
  enqueue(entry: OutboundEntry): void;
}

interface OpenFrame {
  readonly buffer: Buffer;
  readonly extents: DiskExtent[];
  dataBytes: number;
}

export class DiskFrames {
  readonly #out: FrameQueue;
  readonly #disk: number;
  readonly #onFailed: (error: unknown) => void;
  readonly #pool: Buffer[] = [];
  #open: OpenFrame | null = null;
  #flushDue = false;
  #stopped = false;

  /** `disk`: its index in the offer. `onFailed`: something went wrong where no caller can be told. */
  constructor(
    out: FrameQueue,
    options: { readonly disk: number; readonly onFailed: (error: unknown) => void },
  ) {
    this.#out = out;
    this.#disk = options.disk;
    this.#onFailed = options.onFailed;
  }

  /** Bytes of a frame that waits for more. */
  get openBytes(): number {
    return this.#open?.dataBytes ?? 0;
  }

  /**
   * The bytes may be reused as soon as the call returns. What is one `unit` is not spread over two
   * frames, if one can hold it: the dest then knows its hash without reading it again.
   */
  data(offset: number, bytes: Buffer, { unit = false } = {}): void {
    if (unit && this.openBytes + bytes.length > FRAME_DISK_BYTES_MAX) this.flush();
    for (let done = 0; done < bytes.length;) {
      const frame = this.#frame();
      const room = FRAME_DISK_BYTES_MAX - frame.dataBytes;
      const length = Math.min(room, bytes.length - done);
      bytes.copy(frame.buffer, HEADROOM_BYTES + frame.dataBytes, done, done + length);
      frame.dataBytes += length;
      this.#add(frame, { operation: DiskOperation.DATA, offset: offset + done, length });
      done += length;
    }
  }

  zeros(offset: number, length: number, operation: "zero" | "trim"): void {
    for (let done = 0; done < length;) {
      const piece = Math.min(EXTENT_LENGTH_MAX, length - done);
      this.#add(this.#frame(), {
        operation: operation === "zero" ? DiskOperation.ZERO : DiskOperation.TRIM,
        offset: offset + done,
        length: piece,
      });
      done += piece;
    }
  }

  flush(): void {
    const frame = this.#open;
    this.#open = null;
    if (frame === null || this.#stopped) return;
    const frameStart = HEADROOM_BYTES - FRAME_HEADER_BYTES - frame.extents.length * EXTENT_BYTES;
    for (const [index, extent] of frame.extents.entries()) {
      putExtent(frame.buffer, { frameStart, index }, extent);
    }
    const whole = frame.buffer.subarray(frameStart, HEADROOM_BYTES + frame.dataBytes);
    const isSmall = whole.length <= SMALL_BYTES;
    const reuse = (): void => {
      if (this.#pool.length < POOL_MAX) this.#pool.push(frame.buffer);
    };
    const view = isSmall ? Buffer.from(whole) : whole;
    if (isSmall) reuse();
    this.#out.enqueue({
      view,
      kind: FrameKind.DISK,
      encoding: FrameEncoding.RAW,
      pass: 0,
      block: this.#disk,
      runs: frame.extents.length,
      flushed: isSmall ? () => undefined : reuse,
    });
  }

  /** Nothing is sent any more. */
  stop(): void {
    this.#stopped = true;
    this.#open = null;
  }

  #frame(): OpenFrame {
    const buffer = (): Buffer =>
      this.#pool.pop() ?? Buffer.allocUnsafeSlow(HEADROOM_BYTES + FRAME_DISK_BYTES_MAX);
    this.#open ??= { buffer: buffer(), extents: [], dataBytes: 0 };
    return this.#open;
  }

  #add(frame: OpenFrame, extent: DiskExtent): void {
    const last = frame.extents.at(-1);
    if (last !== undefined && continues(last, extent)) {
      frame.extents[frame.extents.length - 1] = { ...last, length: last.length + extent.length };
    } else frame.extents.push(extent);
    const full = frame.dataBytes === FRAME_DISK_BYTES_MAX;
    if (full || frame.extents.length === FRAME_EXTENTS_MAX) this.flush();
    else this.#flushSoon();
  }

  #flushSoon(): void {
    if (this.#flushDue) return;
    this.#flushDue = true;
    setImmediate(() => {
      this.#flushDue = false;
      try {
        this.flush();
      } catch (error) {
        this.#onFailed(error);
      }
    });
  }
}

function continues(last: DiskExtent, extent: DiskExtent): boolean {
  return (
    last.operation === extent.operation &&
    last.offset + last.length === extent.offset &&
    last.length + extent.length <= EXTENT_LENGTH_MAX
  );
}
