/**
 * Collects pages of one block and pass in a frame, and queues it when it is full. A pass holds either
 * pages or opaque bytes; between two of them is a barrier.
 */
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
  #holds: "stream" | "pages" = "stream";
  #pass = 0;

  constructor(out: FrameQueue) {
    this.#out = out;
  }

  /** Of what is queued now. */
  get pass(): number {
    return this.#pass;
  }

  get isOpen(): boolean {
    return this.#open !== null;
  }

  /** A pass of this kind: another one, unless it is already. */
  enter(holds: "stream" | "pages"): void {
    if (this.#holds === holds) return;
    this.flush();
    this.#holds = holds;
    this.nextPass();
  }

  /** Whoever takes the barrier may ask for more at once: that belongs to the pass behind it. */
  nextPass(): void {
    this.flush();
    const barrierOfPass = this.#pass++;
    this.#out.enqueue({ barrierOfPass });
  }

  /** The one that pages of `block` are added to; of another block what was collected is queued. */
  frame(block: number): PageFrame {
    if (this.#open !== null && this.#open.block !== block) this.flush();
    this.#open ??= this.fresh(block);
    return this.#open;
  }

  closeIfFull(): void {
    if (this.#open?.full === true) this.flush();
  }

  flush(): void {
    const frame = this.#open;
    if (frame === null) return;
    this.#open = null;
    // Opened for a page that turned out to be unchanged.
    if (frame.empty) this.giveBack(frame);
    else this.#out.enqueue(this.outbound(frame, this.#pass));
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
