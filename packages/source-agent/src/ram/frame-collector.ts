/** Collects pages of one block and pass in a frame, and queues it when it is full. */
import { FrameEncoding, FrameKind } from "@vmferry/protocol";
import type { OutboundEntry, OutboundFrame } from "../transport/bulk-sender.ts";
import { PageFrame } from "./page-frame.ts";

/** Where frames go, in order. */
export interface FrameQueue {
  enqueue(entry: OutboundEntry): void;
}

export class FrameCollector {
  readonly #out: FrameQueue;
  readonly #pool: PageFrame[] = [];
  #open: PageFrame | null = null;

  constructor(out: FrameQueue) {
    this.#out = out;
  }

  get isOpen(): boolean {
    return this.#open !== null;
  }

  /** The one that pages of `block` are added to; of another block what was collected is queued. */
  frame(block: number, pass: number): PageFrame {
    if (this.#open !== null && this.#open.block !== block) this.flush(pass);
    this.#open ??= this.fresh(block);
    return this.#open;
  }

  closeIfFull(pass: number): void {
    if (this.#open?.full === true) this.flush(pass);
  }

  flush(pass: number): void {
    const frame = this.#open;
    if (frame === null) return;
    this.#open = null;
    // Opened for a page that turned out to be unchanged.
    if (frame.empty) this.giveBack(frame);
    else this.#out.enqueue(this.outbound(frame, pass));
  }

  /** One that is the caller's alone. */
  fresh(block: number): PageFrame {
    const frame = this.#pool.pop() ?? new PageFrame();
    frame.reset(block);
    return frame;
  }

  giveBack(frame: PageFrame): void {
    this.#pool.push(frame);
  }

  outbound(frame: PageFrame, pass: number): OutboundFrame {
    return {
      view: frame.finish(),
      kind: FrameKind.PAGES,
      encoding: FrameEncoding.RAW,
      pass,
      block: frame.block,
      runs: frame.runs,
      flushed: () => {
        this.giveBack(frame);
      },
    };
  }
}
