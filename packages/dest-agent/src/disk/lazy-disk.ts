/**
 * A disk that its guest uses before all of it is here. A unit is missing, or being filled by exactly
 * one operation, or present for good:
 *
 *   read, or a write to a part ─▶ missing? ask the source, wait ─▶ image
 *   a write that covers the unit ─▶ missing? take its place, ask nobody ─▶ image
 *   pull: the rest, a window's worth at a time
 *   answer ─▶ hash ─▶ image ─▶ present map ─▶ whoever waits
 *
 * Whoever finds a unit being filled waits, so that nothing of the source's ever lands on what the
 * guest wrote. A write is acknowledged when the kernel has both it and its units' marks, a flush when
 * the disk has. Requests that wait are bounded by the export in front of this, answers by what was
 * asked for.
 */
import type { DiskHashes } from "@vmferry/agent";
import { BlockError, type BlockDevice, type Extent, type PresentMap } from "@vmferry/block";
import { Deferred, failpoint, messageOf, type Clock } from "@vmferry/core";
import { ASK_UNITS_MAX, Urgency, type BlocksMessage, type UnitRun } from "@vmferry/protocol";
import { PullOrder } from "../policy/pull-order.ts";
import { PullWindow } from "../policy/pull-window.ts";
import type { DiskEnd, UnitSink } from "./block-fetcher.ts";
import { SettledUnits } from "./settled-units.ts";
import { unitContent, type UnitContent } from "./unit-content.ts";
import { UnitFills } from "./unit-fills.ts";
import { runsOf, UnitGeometry, unitsIn, type ByteRange } from "./unit-range.ts";

/** Fetched since the last time that the map was made durable. */
const SETTLE_BYTES = 32 * 1024 * 1024;
/** Until units that could not be had are asked for again, where nobody waits for them. */
const RETRY_MS = 5000;

export interface LazyDiskOptions {
  readonly id: string;
  readonly image: BlockDevice;
  readonly map: PresentMap;
  /** Of what the source has; missing units are left out, and stay so where the guest replaces them. */
  readonly hashes: DiskHashes;
  /** Feature `zstd` was agreed. */
  readonly compression: boolean;
  readonly ask: (run: UnitRun, urgency: Urgency) => void;
  readonly clock: Clock;
  /** Image or map may have lost something: every request fails from now on. */
  readonly onFailed: (error: unknown) => void;
}

export class LazyDisk implements BlockDevice, UnitSink {
  readonly sizeBytes: number;
  readonly #options: LazyDiskOptions;
  readonly #geometry: UnitGeometry;
  readonly #fills = new UnitFills();
  readonly #settled: SettledUnits;
  readonly #order: PullOrder;
  readonly #window = new PullWindow();
  readonly #whole = new Deferred();
  readonly #verdict = new Deferred<boolean>();
  #pulling = false;
  #unsettledBytes = 0;
  #failure: BlockError | null = null;
  /** Settles when the map says that it has failed. */
  #noted: Promise<void> = Promise.resolve();
  #isLost = false;
  #givenUp = false;
  #cancelRetry: () => void = () => undefined;

  constructor(options: LazyDiskOptions) {
    const { image, map, hashes } = options;
    this.#options = options;
    this.sizeBytes = image.sizeBytes;
    this.#geometry = new UnitGeometry(hashes);
    this.#settled = new SettledUnits(image, map);
    this.#order = new PullOrder(map.units);
  }

  /** Bytes that are at the source alone. */
  get remainingBytes(): number {
    return Math.min(this.sizeBytes, this.#options.map.missing * this.#geometry.unitBytes);
  }

  /** Every unit is present and durable. Rejects with what was given to `onFailed`. */
  get whole(): Promise<void> {
    return this.#whole.promise;
  }

  /** Image or map may have lost something: no request succeeds any more. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** Whether both ends agree on what was fetched; the fetcher brings it. */
  get equal(): Promise<boolean> {
    return this.#verdict.promise;
  }

  /** Begins to fetch what nobody waits for. */
  pull(): void {
    if (this.#failure !== null) return;
    this.#pulling = true;
    if (this.#options.map.missing === 0) void this.#finish();
    else this.#pullOn();
  }

  /** Once it is whole: units that did not come from the source in this life, and all others' digest. */
  end(): DiskEnd {
    const { hashes } = this.#options;
    const kept: { readonly first: number; count: number }[] = [];
    for (let unit = 0; unit < hashes.units; unit++) {
      if (!hashes.isLeftOut(unit)) continue;
      const last = kept.at(-1);
      if (last !== undefined && last.first + last.count === unit) last.count++;
      else kept.push({ first: unit, count: 1 });
    }
    return { kept, digest: hashes.digest() };
  }

  /** The source is gone for good, as far as a person knows: what needs it fails. */
  giveUp(): void {
    this.#givenUp = true;
    this.#fills.loseAsked(this.#unreachable());
  }

  /** It is there again. */
  takeUp(): void {
    this.#givenUp = false;
    this.#pullOn();
  }

  /** Whoever is still served fails. Resolves when nothing is written any more. */
  async stop(): Promise<void> {
    this.#failure ??= this.#error("ESHUTDOWN", "it is not served any more");
    this.#stopPulling();
    this.#fills.loseAsked(this.#failure);
    await this.#fills.idle();
    await this.#settled.idle();
    this.#whole.reject(this.#failure);
    this.#verdict.reject(this.#failure);
  }

  async read(offset: number, length: number): Promise<Buffer> {
    await this.#ready({ offset, length }, "fetch");
    return this.#options.image.read(offset, length);
  }

  async readInto(offset: number, buffer: Buffer): Promise<void> {
    await this.#ready({ offset, length: buffer.length }, "fetch");
    await this.#options.image.readInto(offset, buffer);
  }

  write(offset: number, data: Buffer): Promise<void> {
    const range = { offset, length: data.length };
    return this.#change(range, () => this.#options.image.write(offset, data));
  }

  writeZeroes(
    offset: number,
    length: number,
    options: { readonly mayPunch: boolean },
  ): Promise<void> {
    const range = { offset, length };
    return this.#change(range, () => this.#options.image.writeZeroes(offset, length, options));
  }

  async trim(offset: number, length: number): Promise<void> {
    const { image, map } = this.#options;
    // To fetch a unit for the sake of a trim would be the opposite of it.
    const isMissing = (unit: number): boolean => !map.has(unit);
    const range = this.#geometry.withoutEdges({ offset, length }, isMissing);
    if (range === null) return;
    // What an image held before it was this guest's must not show.
    if (unitsIn(this.#geometry.touched(range)).some(isMissing)) {
      await this.writeZeroes(range.offset, range.length, { mayPunch: true });
    } else await this.#change(range, () => image.trim(range.offset, range.length));
  }

  async flush(): Promise<void> {
    try {
      this.#check();
      await this.#settled.flush();
    } catch (error) {
      const failure = this.#fail(error);
      // Before QEMU is told: no later life of the agent may let the next flush succeed.
      await this.#noted;
      throw failure;
    }
  }

  async extents(offset: number, length: number): Promise<readonly Extent[]> {
    const { map, image } = this.#options;
    const { first, count } = this.#geometry.touched({ offset, length });
    const isMissing = !map.has(first);
    let alike = 1;
    while (alike < count && map.has(first + alike) !== isMissing) alike++;
    const bytes = this.#geometry.bytesOf({ first, count: alike });
    const until = Math.min(bytes.offset + bytes.length, offset + length);
    // Nobody knows what is in a missing unit.
    if (isMissing) return [{ offset, length: until - offset, kind: "data" }];
    return image.extents(offset, until - offset);
  }

  arrived(answer: BlocksMessage): void {
    const { hashes, compression } = this.#options;
    const content = unitContent(answer, { hashes, compression });
    for (const run of this.#waitingRuns(answer)) {
      if (content.kind === "unreadable") {
        this.#notHad(run, this.#error("EIO", "the source cannot read it"));
      } else void this.#place(run, content);
    }
  }

  verdict(equal: boolean): void {
    this.#verdict.resolve(equal);
  }

  async #change(range: ByteRange, work: () => Promise<void>): Promise<void> {
    const covered = await this.#ready(range, "cover");
    try {
      await work();
      await this.#markAll(covered);
      this.#settled.written(this.#geometry.touched(range));
    } finally {
      for (const unit of covered) this.#fills.release(unit);
    }
    if (covered.length > 0) this.#progressed();
  }

  /**
   * Resolves when every unit of the range is present, or with `cover` is the caller's to fill: those
   * that it covers, which are what this resolves with.
   */
  async #ready(range: ByteRange, mode: "fetch" | "cover"): Promise<readonly number[]> {
    const { map, clock } = this.#options;
    const { first, count } = this.#geometry.touched(range);
    for (;;) {
      this.#check();
      const covered: number[] = [];
      const fetched: number[] = [];
      const waits: Promise<void>[] = [];
      for (let unit = first; unit < first + count; unit++) {
        if (map.has(unit)) continue;
        const fill = this.#fills.get(unit);
        if (fill === undefined) {
          const isCovered = mode === "cover" && this.#geometry.covers(range, unit);
          (isCovered ? covered : fetched).push(unit);
          continue;
        }
        waits.push(fill.done);
        if (fill.by === "source" && !fill.urgent && !fill.placing) fetched.push(unit);
      }
      waits.push(...this.#fetch(fetched));
      if (waits.length === 0) {
        const fill = { by: "guest", urgent: true, sinceMs: clock.nowMs() } as const;
        for (const unit of covered) this.#fills.begin(unit, fill);
        return covered;
      }
      await Promise.all(waits);
    }
  }

  /** Asks for units that the guest waits for. */
  #fetch(units: readonly number[]): Promise<void>[] {
    if (units.length === 0) return [];
    if (this.#givenUp) throw this.#unreachable();
    const { ask, clock } = this.#options;
    const sinceMs = clock.nowMs();
    const waits = units.map((unit) => {
      this.#fills.hurry(unit);
      const fill = this.#fills.get(unit);
      return (fill ?? this.#fills.begin(unit, { by: "source", urgent: true, sinceMs })).done;
    });
    for (const run of runsOf(units)) {
      ask(run, Urgency.URGENT);
      this.#order.demanded(run);
    }
    this.#pullOn();
    return waits;
  }

  /** What of an answer is waited for: an answer may come twice, or for what was given up. */
  #waitingRuns(run: UnitRun): UnitRun[] {
    return runsOf(
      unitsIn(run).filter((unit) => {
        const fill = this.#fills.get(unit);
        return fill?.by === "source" && !fill.placing;
      }),
    );
  }

  async #place(run: UnitRun, content: UnitContent & { kind: "data" | "zero" }): Promise<void> {
    const { image, hashes, clock } = this.#options;
    const { urgent, sinceMs } = this.#fills.get(run.first)!;
    if (!urgent) this.#window.answered(clock.nowMs() - sinceMs, clock.nowMs());
    for (const unit of unitsIn(run)) this.#fills.place(unit);
    const { offset, length } = this.#geometry.bytesOf(run);
    try {
      failpoint("lazy.place.before");
      if (content.kind === "data") await image.write(offset, content.data);
      else await image.writeZeroes(offset, length, { mayPunch: content.mayPunch });
      failpoint("lazy.place.after");
      await this.#markAll(unitsIn(run));
    } catch (error) {
      // Want of space passes; anything else may have lost something.
      const isFull = error instanceof BlockError && error.detail.errno === "ENOSPC";
      this.#notHad(run, isFull ? error : this.#fail(error));
      return;
    }
    if (content.kind === "data") hashes.set(run.first, content.hash);
    else hashes.setZero(run.first, run.count);
    for (const unit of unitsIn(run)) this.#fills.release(unit);
    this.#unsettledBytes += length;
    this.#progressed();
  }

  #notHad(run: UnitRun, error: BlockError): void {
    for (const unit of unitsIn(run)) {
      this.#fills.lose(unit, error);
      this.#order.defer(unit);
    }
    if (this.#failure !== null) return;
    this.#cancelRetry();
    this.#cancelRetry = this.#options.clock.after(RETRY_MS, () => {
      this.#order.retry();
      this.#pullOn();
    });
    this.#pullOn();
  }

  async #markAll(units: readonly number[]): Promise<void> {
    try {
      await Promise.all(runsOf(units).map((run) => this.#options.map.mark(run.first, run.count)));
    } catch (error) {
      throw this.#fail(error);
    }
  }

  #progressed(): void {
    if (this.#options.map.missing === 0) void this.#finish();
    else if (this.#unsettledBytes >= SETTLE_BYTES) {
      this.#unsettledBytes = 0;
      this.#settled.settle().catch((error: unknown) => this.#fail(error));
    }
    this.#pullOn();
  }

  #pullOn(): void {
    const { map, ask, clock } = this.#options;
    const wanted = (unit: number): boolean => !map.has(unit) && this.#fills.get(unit) === undefined;
    while (this.#pulling && !this.#givenUp && this.#failure === null) {
      const room = Math.min(ASK_UNITS_MAX, this.#window.units - this.#fills.pulled);
      if (room <= 0 || map.missing <= this.#fills.size + this.#order.deferred) return;
      const run = this.#order.next(wanted, room);
      if (run === null) return;
      const fill = { by: "source", urgent: false, sinceMs: clock.nowMs() } as const;
      for (const unit of unitsIn(run)) this.#fills.begin(unit, fill);
      ask(run, Urgency.BACKGROUND);
    }
  }

  async #finish(): Promise<void> {
    if (!this.#pulling) return;
    this.#stopPulling();
    try {
      await this.#settled.settle();
      this.#whole.resolve();
    } catch (error) {
      this.#fail(error);
    }
  }

  #stopPulling(): void {
    this.#pulling = false;
    this.#cancelRetry();
  }

  #check(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /** For good: nobody knows any more what the image or the map holds. */
  #fail(cause: unknown): BlockError {
    if (this.#failure !== null) return this.#failure;
    const text = `its image may have lost something: ${messageOf(cause)}`;
    const failure = this.#error("EIO", text, cause);
    this.#failure = failure;
    this.#isLost = true;
    this.#stopPulling();
    // That it cannot be said durably either is no further failure.
    this.#noted = this.#options.map.fail().catch(() => undefined);
    this.#fills.loseAsked(failure);
    this.#whole.reject(failure);
    this.#verdict.reject(failure);
    this.#options.onFailed(failure);
    return failure;
  }

  #unreachable(): BlockError {
    return this.#error("EIO", "the source that has the rest of it was given up");
  }

  #error(errno: "EIO" | "ESHUTDOWN", text: string, cause?: unknown): BlockError {
    const detail = { code: "block-io", errno, operation: "fetch", offset: null } as const;
    return new BlockError(`disk ${this.#options.id}: ${text}`, detail, { cause });
  }
}
