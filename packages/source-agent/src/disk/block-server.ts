/**
 * Answers what a dest asks of the lazy disks of a guest that it has: from images that nothing writes
 * to any more, so that an agent which knows nothing but the images can do it as well.
 *
 *   ask ─▶ queue (urgent | background) ─▶ hole? zero? read, hash, compress ─▶ link
 *
 * Urgent units overtake all others until their answer is made; they are counted against the limit of
 * the bandwidth, and never wait for it. What is at work at once is bounded, and each waits until the
 * link has taken its answer.
 */
import { zstdInto, type DiskHashes } from "@vmferry/agent";
import type { BlockDevice } from "@vmferry/block";
import { assert, type Clock } from "@vmferry/core";
import {
  ASK_UNITS_MAX,
  ASKED_UNITS_MAX,
  BlockContent,
  decodeBlockQuestion,
  encodeBlockMessage,
  Urgency,
  violation,
  type BlockAnswer,
  type BlocksMessage,
  type UnitRun,
} from "@vmferry/protocol";
import { TokenBucket } from "../policy/token-bucket.ts";
import { AskedUnits, type AskedRun } from "./asked-units.ts";
import { HoleMap } from "./hole-map.ts";
import { isZero } from "./is-zero.ts";

/** Of them one is kept for what is urgent. */
const WORKERS_MAX = 4;
/** A unit that does not become this much smaller goes as it is. */
const GAIN_SHARE_MIN = 0.05;
const NO_DATA = Buffer.alloc(0);

export interface ServedDisk {
  readonly image: BlockDevice;
  /** Filled as units are served; what is left out is hashed at the end. */
  readonly hashes: DiskHashes;
  /**
   * Counted as units are served for the first time, but for one: what was sent is not there yet, so
   * that none is left only when the dest has said so.
   */
  readonly remaining: { units: number };
}

export interface AnswerLink {
  /** Resolves when the message is with the kernel, or the link is broken. */
  send(message: Buffer): Promise<void>;
}

export interface BlockServerOptions {
  /** By index in the offer; null for a disk that is not lazy. */
  readonly disks: readonly (ServedDisk | null)[];
  /** Feature `zstd` was agreed. */
  readonly compression: boolean;
  readonly bandwidthBytesPerSecond: number | null;
  readonly clock: Clock;
  readonly link: AnswerLink;
  /** Of a link that cannot go on: the protocol was broken, or an image failed where no unit can be named. */
  readonly onFailed: (error: unknown) => void;
}

export class BlockServer {
  readonly #options: BlockServerOptions;
  readonly #asked = new AskedUnits();
  readonly #kept = new Map<number, UnitRun[]>();
  readonly #holes: readonly (HoleMap | null)[];
  readonly #bucket: TokenBucket;
  readonly #judging = new Set<number>();
  #working = 0;
  #sentBytes = 0;
  #stopped = false;
  #cancelTimer: (() => void) | null = null;

  constructor(options: BlockServerOptions) {
    const { disks, bandwidthBytesPerSecond, clock } = options;
    this.#options = options;
    this.#holes = disks.map((disk) => (disk === null ? null : new HoleMap(disk.image)));
    this.#bucket = new TokenBucket(bandwidthBytesPerSecond, clock.nowMs());
  }

  /** On the wire. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  setBandwidth(bytesPerSecond: number | null): void {
    this.#bucket.setLimit(bytesPerSecond, this.#options.clock.nowMs());
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    this.#workOn();
  }

  /** Throws ProtocolError: then the link is to be closed. */
  received(message: Buffer): void {
    const question = decodeBlockQuestion(message);
    const { hashes, remaining } = this.#diskOf(question.disk);
    switch (question.kind) {
      case "ask":
        if (question.first + question.count > hashes.units)
          throw violation("unit outside its disk");
        this.#asked.add(question, question.urgency === Urgency.URGENT);
        if (this.#asked.units > ASKED_UNITS_MAX) throw violation("too many units at once");
        this.#workOn();
        break;
      case "kept":
        this.#keep(question.disk, question.runs);
        break;
      case "end":
        if (this.#judging.has(question.disk)) throw violation("end of a disk before its verdict");
        remaining.units = 0;
        void this.#judge(question.disk, question.digest);
        break;
    }
  }

  /** The link is gone: what was asked on it is not answered. */
  stop(): void {
    this.#stopped = true;
    this.#cancelTimer?.();
    this.#asked.clear();
  }

  #workOn(): void {
    while (!this.#stopped && this.#working < WORKERS_MAX) {
      const urgent = this.#asked.takeUrgent(1);
      const next = urgent ?? this.#takeBackground();
      if (next === null) return;
      this.#working += 1;
      void this.#serve(next, urgent !== null);
    }
  }

  #takeBackground(): AskedRun | null {
    if (this.#working === WORKERS_MAX - 1 || this.#cancelTimer !== null) return null;
    const { clock } = this.#options;
    const waitMs = this.#bucket.waitMs(clock.nowMs());
    if (waitMs === 0) return this.#asked.takeBackground(1);
    if (!this.#asked.hasBackground) return null;
    this.#cancelTimer = clock.after(waitMs, () => {
      this.#cancelTimer = null;
      this.#workOn();
    });
    return null;
  }

  async #serve(asked: AskedRun, urgent: boolean): Promise<void> {
    try {
      await this.#send(await this.#answerTo(asked, urgent));
    } catch (error) {
      if (!this.#stopped) this.#options.onFailed(error);
    } finally {
      this.#working -= 1;
      this.#workOn();
    }
  }

  async #answerTo({ disk, first }: AskedRun, urgent: boolean): Promise<BlocksMessage> {
    const { hashes, image } = this.#diskOf(disk);
    const message = { kind: "blocks", disk, first, count: 1, hash: 0n, data: NO_DATA } as const;
    let content: Buffer;
    try {
      const holes = urgent ? await this.#isHole(disk, first) : await this.#holesFrom(disk, first);
      if (holes > 0) {
        this.#count(disk, first, holes);
        hashes.setZero(first, holes);
        return { ...message, content: BlockContent.HOLE, count: holes };
      }
      content = await image.read(first * hashes.unitBytes, hashes.lengthOf(first));
    } catch {
      return { ...message, content: BlockContent.UNREADABLE };
    }
    this.#count(disk, first, 1);
    if (isZero(content)) {
      hashes.setZero(first, 1);
      return { ...message, content: BlockContent.ZERO };
    }
    const hash = hashes.hash(content);
    hashes.set(first, hash);
    const smaller = await this.#compressed(content);
    return smaller === null
      ? { ...message, content: BlockContent.RAW, hash, data: content }
      : { ...message, content: BlockContent.ZSTD, hash, data: smaller };
  }

  #count(disk: number, first: number, count: number): void {
    const { hashes, remaining } = this.#diskOf(disk);
    for (let unit = first; unit < first + count; unit++) {
      if (hashes.isLeftOut(unit) && remaining.units > 1) remaining.units -= 1;
    }
  }

  /** 1 where the unit is a hole: a look at one place, for nobody knows which comes next. */
  async #isHole(disk: number, unit: number): Promise<number> {
    const { hashes, image } = this.#diskOf(disk);
    const length = hashes.lengthOf(unit);
    const [extent] = await image.extents(unit * hashes.unitBytes, length);
    return extent?.kind === "zero" && extent.length >= length ? 1 : 0;
  }

  /** How many units from this one on, all of them asked for, lie in one hole; they are taken. */
  async #holesFrom(disk: number, unit: number): Promise<number> {
    const { hashes, image } = this.#diskOf(disk);
    const offset = unit * hashes.unitBytes;
    const bytes = await this.#holes[disk]!.reach(offset);
    if (bytes < hashes.lengthOf(unit)) return 0;
    const isLast = offset + bytes === image.sizeBytes;
    const units = (isLast ? Math.ceil : Math.floor)(bytes / hashes.unitBytes);
    const more = Math.min(units, ASK_UNITS_MAX) - 1;
    return 1 + this.#asked.takeNext({ disk, first: unit + 1 }, more);
  }

  /** Null where it gains nothing. */
  async #compressed(content: Buffer): Promise<Buffer | null> {
    if (!this.#options.compression) return null;
    const room = Buffer.allocUnsafeSlow(Math.floor(content.length * (1 - GAIN_SHARE_MIN)));
    const bytes = await zstdInto(room, content);
    return bytes === null ? null : room.subarray(0, bytes);
  }

  #keep(disk: number, runs: readonly UnitRun[]): void {
    const { hashes } = this.#diskOf(disk);
    const kept = this.#kept.get(disk) ?? [];
    let end = kept.length === 0 ? 0 : kept.at(-1)!.first + kept.at(-1)!.count;
    for (const run of runs) {
      // Ascending over all messages: so there are never more of them than units.
      if (run.first < end) throw violation("kept runs out of order");
      end = run.first + run.count;
      if (end > hashes.units) throw violation("unit outside its disk");
      kept.push(run);
    }
    this.#kept.set(disk, kept);
  }

  /** What the dest has taken, as it says, is what the image holds here. */
  async #judge(disk: number, digest: string): Promise<void> {
    const { hashes, image } = this.#diskOf(disk);
    const kept = this.#kept.get(disk) ?? [];
    this.#kept.delete(disk);
    this.#judging.add(disk);
    try {
      for (const { first, count } of kept) hashes.leaveOut(first, count);
      let next = 0;
      for (let unit = 0; unit < hashes.units && !this.#stopped; unit++) {
        while (next < kept.length && unit >= kept[next]!.first + kept[next]!.count) next++;
        const isKept = next < kept.length && unit >= kept[next]!.first;
        if (isKept || !(hashes.isLeftOut(unit) || hashes.isOpen(unit))) continue;
        const content = await image.read(unit * hashes.unitBytes, hashes.lengthOf(unit));
        hashes.set(unit, hashes.hash(content));
      }
      if (this.#stopped) return;
      this.#judging.delete(disk);
      await this.#send({ kind: "verdict", disk, equal: hashes.digest() === digest });
    } catch (error) {
      if (!this.#stopped) this.#options.onFailed(error);
    }
  }

  async #send(answer: BlockAnswer): Promise<void> {
    if (this.#stopped) return;
    const bytes = encodeBlockMessage(answer);
    this.#sentBytes += bytes.length;
    this.#bucket.spend(bytes.length, this.#options.clock.nowMs());
    await this.#options.link.send(bytes);
  }

  #diskOf(disk: number): ServedDisk {
    const served = this.#options.disks[disk] ?? null;
    if (served === null) throw violation("question about a disk that is not lazy");
    assert(served.image.sizeBytes === served.hashes.sizeBytes, "a disk is hashed as a whole");
    return served;
  }
}
