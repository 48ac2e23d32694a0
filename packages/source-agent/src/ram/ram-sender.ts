/**
 * What the source agent does with each page of QEMU's stream:
 *
 *   zero? → hot? (held) → hash → unchanged since last sent? → into a frame
 *
 * A pass is over when a page comes again; a barrier tells the dest. So within a pass frames may
 * overtake each other on several connections, and the last version of a page still wins.
 * Opaque bytes and pages never share a pass.
 */
import { assert, Bitmap, type Clock } from "@vmferry/core";
import { PageHashes } from "@vmferry/agent";
import { FrameEncoding, FrameKind, limits, type MapArea } from "@vmferry/protocol";
import type { RamBlock, StreamHandler } from "@vmferry/qemu";
import type { Drain, DrainStage } from "./drain.ts";
import { Draining } from "./draining.ts";
import { FrameCollector, type FrameQueue } from "./frame-collector.ts";
import { HeatMap, HOT_HEAT } from "./heat-map.ts";
import { HeldPages } from "./held-pages.ts";
import { postcopyFrame } from "./missing-frames.ts";
import type { PageFrame } from "./page-frame.ts";
import type { PagePlace } from "../postcopy/push.ts";
import { mapOfRam } from "./ram-map.ts";
import type { OutboundFrame } from "../transport/bulk-sender.ts";

const { FRAME_HEADER_BYTES, FRAME_STREAM_BYTES_MAX, PAGE_BYTES } = limits;
/** Memory for held pages, whatever the downtime budget would allow. */
const HELD_BYTES_MAX = 64 * 1024 * 1024;
/** Held pages that may leave at the end of one pass. */
const COOLED_PER_PASS_MAX = 256;
/** A page is cool when neither passes nor this much time brought it again. */
const COOL_MS = 200;

export interface RamSenderOptions {
  readonly out: FrameQueue;
  readonly clock: Clock;
  readonly hashSeed: string;
  /** Every page is on its way; the digest covers what was sent. */
  readonly onRamSent: (ramDigest: string) => void;
}

export interface RamCounters {
  sentPages: number;
  zeroPages: number;
  unchangedPages: number;
  /** Pages that came from QEMU after the first pass, and those of them that were held already. */
  cameAgainPages: number;
  cameHeldPages: number;
  pass: number;
}

export class RamSender implements StreamHandler {
  readonly counters: RamCounters = {
    sentPages: 0,
    zeroPages: 0,
    unchangedPages: 0,
    cameAgainPages: 0,
    cameHeldPages: 0,
    pass: 0,
  };
  readonly #options: RamSenderOptions;
  readonly #out: FrameQueue;
  #memory: Memory | null = null;
  readonly #frames: FrameCollector;
  #stunned = false;
  /** Begins with the second pass, where it did not begin at once. */
  #dueDrain: Drain | null = null;
  /** Null until the drain. */
  #draining: Draining | null = null;
  #heldPagesMax = 0;

  constructor(options: RamSenderOptions) {
    this.#options = options;
    this.#out = options.out;
    this.#frames = new FrameCollector(options.out);
  }

  get heldBytes(): number {
    return this.#memory?.held.bytes ?? 0;
  }

  /** In the store, for the link to take before or after the hand-over. */
  get storedBytes(): number {
    return (this.#draining?.missingPages ?? 0) * PAGE_BYTES;
  }

  /** Null before RAM was announced. */
  get blocks(): readonly RamBlock[] | null {
    return this.#memory?.blocks ?? null;
  }

  /** Null until what comes goes to a store. */
  get drainStage(): DrainStage | null {
    return this.#draining?.stage ?? null;
  }

  get isStunned(): boolean {
    return this.#stunned;
  }

  get totalBytes(): number {
    return (this.#memory?.hashes.pages ?? 0) * PAGE_BYTES;
  }

  /** Null before RAM was announced. */
  map(cells: number): MapArea | null {
    const memory = this.#memory;
    if (memory === null) return null;
    return mapOfRam(
      { ...memory, pass: this.counters.pass, isDrained: this.#draining !== null },
      cells,
    );
  }

  /** How much the downtime budget lets the filter hold; more than that leaves pass by pass. */
  setHeldBytesMax(bytes: number): void {
    this.#heldPagesMax = Math.floor(Math.min(bytes, HELD_BYTES_MAX) / PAGE_BYTES);
  }

  /** The vCPUs stand still: nothing is held any more. */
  stunned(): void {
    this.#stunned = true;
  }

  /**
   * Where it starts with the second pass, what is left of the first, in QEMU or between QEMU and
   * here, is sent as ever, for of that the guest needs some as soon as it runs, and will not write
   * to most of it.
   */
  drain(drain: Drain): void {
    this.#dueDrain = drain;
    if (drain.start !== "second-pass" || this.counters.pass > 1) this.#beginDueDrain(this.#known());
  }

  /** One that would begin with the second pass begins. */
  drainNow(): void {
    if (this.#memory !== null) this.#beginDueDrain(this.#memory);
  }

  #beginDueDrain(memory: Memory): void {
    if (this.#dueDrain === null) return;
    const options = { memory, frames: this.#frames, out: this.#out, pass: this.counters.pass };
    this.#draining = new Draining(this.#dueDrain, options);
    this.#dueDrain = null;
  }

  /** The third pass has begun: pages of quiet places may be sent, as soon as they can be read. */
  beginCold(): void {
    this.#draining?.beginCold(() => this.counters.sentPages++);
  }

  /** Tells whether there may be more. */
  fillCold(): boolean {
    return this.#draining?.fillCold() ?? false;
  }

  endCold(): void {
    this.#draining?.endCold();
  }

  /** What the guest works on all the time, the hottest first; at most so many. */
  async hottestPages(countMax: number): Promise<PagePlace[]> {
    const { heat, hashes } = this.#known();
    const isMissing = (index: number): boolean => {
      const { block, page } = hashes.locate(index);
      return this.#draining?.isMissing(block, page) === true;
    };
    const found = await heat.hottest({ pass: this.counters.pass, countMax, isMissing });
    return found.map((index) => hashes.locate(index));
  }

  /** A page that was stored is on its way after the hand-over. */
  served(block: number, page: number, content: Buffer): void {
    const { hashes } = this.#known();
    hashes.set(hashes.indexOf(block, page), hashes.hash(content));
  }

  servedZero(block: number, page: number): void {
    const { hashes } = this.#known();
    hashes.set(hashes.indexOf(block, page), hashes.zeroHash);
  }

  /** Over everything that was sent so far. */
  digest(): string {
    return this.#known().hashes.digest();
  }

  /** Does most of the digest's work ahead of the stun. */
  async refreshDigest(): Promise<void> {
    await this.#memory?.hashes.refresh();
  }

  /** Sends what is collected, so that a slow source does not keep the link waiting. */
  flush(): void {
    this.#frames.flush();
  }

  verbatim(bytes: Uint8Array): void {
    this.flush();
    this.#frames.enter("stream");
    for (let start = 0; start < bytes.length; start += FRAME_STREAM_BYTES_MAX) {
      const piece = bytes.subarray(start, start + FRAME_STREAM_BYTES_MAX);
      const view = Buffer.allocUnsafe(FRAME_HEADER_BYTES + piece.length);
      view.set(piece, FRAME_HEADER_BYTES);
      this.#out.enqueue({
        view,
        kind: FrameKind.STREAM,
        encoding: FrameEncoding.RAW,
        pass: this.#frames.pass,
        block: 0,
        runs: 0,
        flushed: () => undefined,
      });
    }
  }

  deviceState(bytes: Uint8Array): void {
    if (this.#draining === null) {
      this.verbatim(bytes);
      return;
    }
    const sections = this.#draining.deviceState(bytes);
    if (sections !== null) this.#endIncomplete(sections);
  }

  ramStart(section: { readonly blocks: readonly RamBlock[] }): void {
    assert(this.#memory === null, "RAM is announced once");
    const hashes = new PageHashes(section.blocks, this.#options.hashSeed);
    this.#memory = {
      blocks: [...section.blocks],
      hashes,
      seen: new Bitmap(hashes.pages),
      heat: new HeatMap(hashes.pages),
      held: new HeldPages(HELD_BYTES_MAX / PAGE_BYTES),
    };
  }

  zeroPage(block: number, page: number): void {
    const memory = this.#known();
    const index = memory.hashes.indexOf(block, page);
    this.#came(memory, index);
    memory.held.drop(index);
    if (this.#draining?.goesByLink(true) === false) {
      this.#draining.putZero(block, page);
      return;
    }
    if (memory.hashes.get(index) === memory.hashes.zeroHash) {
      this.counters.unchangedPages++;
      return;
    }
    memory.hashes.set(index, memory.hashes.zeroHash);
    this.counters.zeroPages++;
    this.#frames.frame(block).addZero(page);
    this.#frames.closeIfFull();
  }

  page(block: number, page: number, buffer: Buffer, offset: number): void {
    const memory = this.#known();
    const index = memory.hashes.indexOf(block, page);
    this.#came(memory, index);
    if (this.#draining?.goesByLink(false) === false) {
      this.#draining.put(block, page, buffer, offset);
      return;
    }
    if (this.counters.pass > 1) {
      this.counters.cameAgainPages++;
      if (this.#hold(memory, { index, buffer, offset })) return;
    }
    const frame = this.#frames.frame(block);
    buffer.copy(frame.nextSlot, 0, offset, offset + PAGE_BYTES);
    this.#offer(memory, { frame, index, page });
    this.#frames.closeIfFull();
  }

  partEnd(): void {
    // Parts are QEMU's way to slice time; they mean nothing to the dest.
  }

  ramEnd(): void {
    const memory = this.#known();
    this.#beginDueDrain(memory);
    if (this.#draining !== null) {
      this.#draining.end();
      return;
    }
    this.#frames.enter("stream");
    this.#frames.enter("pages");
    const { pass } = this.#frames;
    this.#out.enqueue({ next: () => this.#nextHeldFrame(memory, pass) });
    this.#frames.enter("stream");
    this.#out.enqueue({
      view: Buffer.alloc(FRAME_HEADER_BYTES),
      kind: FrameKind.RAM_END,
      encoding: FrameEncoding.RAW,
      pass: this.#frames.pass,
      block: 0,
      runs: 0,
      flushed: () => undefined,
    });
    this.#out.enqueue({
      call: () => {
        this.#options.onRamSent(memory.hashes.digest());
      },
    });
  }

  /** All of device state, which the dest's QEMU gets as one package. */
  #endIncomplete(sections: Buffer): void {
    this.#out.enqueue(postcopyFrame(sections.length, this.#frames.pass));
    this.verbatim(sections);
    this.#out.enqueue({
      call: () => {
        this.#options.onRamSent(this.digest());
      },
    });
  }

  /** Books the arrival of a page; a page seen before in this pass ends the pass. */
  #came(memory: Memory, index: number): void {
    if (this.counters.pass === 0) this.counters.pass = 1;
    if (this.#draining === null || this.#draining.stage === "shared") this.#frames.enter("pages");
    if (!memory.seen.testAndSet(index)) return;
    // What is held of it is out of date, and must not leave in the very pass that brings it anew.
    memory.held.drop(index);
    this.#endPass(memory);
    memory.seen.testAndSet(index);
  }

  #endPass(memory: Memory): void {
    this.counters.pass++;
    memory.seen.clearAll();
    this.#beginDueDrain(memory);
    if (this.#draining !== null) {
      this.#draining.passOver(this.counters.pass);
      return;
    }
    this.#frames.nextPass();
    if (!this.#stunned) this.#releaseCooled(memory);
  }

  /** True when the page was taken by the heat filter. */
  #hold(memory: Memory, came: { index: number; buffer: Buffer; offset: number }): boolean {
    const { index, buffer, offset } = came;
    const heat = memory.heat.came(index, this.counters.pass);
    const held = memory.held.has(index);
    if (held) this.counters.cameHeldPages++;
    if (this.#stunned) {
      memory.held.drop(index);
      return false;
    }
    if (!held && (heat < HOT_HEAT || memory.held.count >= this.#heldPagesMax)) return false;
    return memory.held.hold(index, buffer, offset, this.#options.clock.nowMs());
  }

  /** The page in the frame's next slot: kept there when it is news to the dest. */
  #offer(memory: Memory, { frame, index, page }: Offered): void {
    const hash = memory.hashes.hash(frame.nextSlot);
    if (hash === memory.hashes.get(index)) {
      this.counters.unchangedPages++;
      return;
    }
    memory.hashes.set(index, hash);
    this.counters.sentPages++;
    frame.addData(page);
  }

  /** Pages that stopped coming, and those above what may be held, oldest first. */
  #releaseCooled(memory: Memory): void {
    const coolMs = this.#options.clock.nowMs() - COOL_MS;
    for (let i = 0; i < COOLED_PER_PASS_MAX; i++) {
      const oldest = memory.held.oldest();
      if (oldest === null) return;
      if (oldest.cameMs > coolMs && memory.held.count <= this.#heldPagesMax) return;
      this.#release(memory, oldest.index);
      memory.seen.testAndSet(oldest.index);
    }
  }

  #release(memory: Memory, index: number): void {
    const { block, page } = memory.hashes.locate(index);
    const frame = this.#frames.frame(block);
    memory.held.release(index, frame.nextSlot);
    this.#offer(memory, { frame, index, page });
    this.#frames.closeIfFull();
  }

  /** At the stun, when everything else is queued: the held pages, one frame at a time. */
  #nextHeldFrame(memory: Memory, pass: number): OutboundFrame | null {
    assert(!this.#frames.isOpen, "no frame is open at the end of RAM");
    let frame: PageFrame | null = null;
    for (;;) {
      const oldest = memory.held.oldest();
      if (oldest === null || frame?.full === true) break;
      const { block, page } = memory.hashes.locate(oldest.index);
      frame ??= this.#frames.fresh(block);
      if (frame.block !== block) {
        if (!frame.empty) break;
        frame.reset(block);
      }
      memory.held.release(oldest.index, frame.nextSlot);
      this.#offer(memory, { frame, index: oldest.index, page });
    }
    if (frame === null) return null;
    if (!frame.empty) return this.#frames.outbound(frame, pass);
    this.#frames.giveBack(frame);
    return null;
  }

  #known(): Memory {
    assert(this.#memory !== null, "pages come after RAM was announced");
    return this.#memory;
  }
}

interface Memory {
  readonly blocks: readonly RamBlock[];
  readonly hashes: PageHashes;
  /** Pages that came in this pass. */
  readonly seen: Bitmap;
  readonly heat: HeatMap;
  readonly held: HeldPages;
}

interface Offered {
  readonly frame: PageFrame;
  readonly index: number;
  readonly page: number;
}
