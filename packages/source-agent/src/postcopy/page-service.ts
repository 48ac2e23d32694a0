/**
 * Serves what the dest lacks after the hand-over, over one pair of page lanes after another, for as
 * long as it takes: what is stored here exists nowhere else.
 *
 * Nothing is kept from one pair to the next but figures. On each new one the dest says what it lacks.
 */
import { limits, type ControlMessageOf } from "@vmferry/protocol";
import type { Logger } from "@vmferry/agent";
import { Deferred, messageOf, sleep } from "@vmferry/core";
import type { OpenPageLane } from "../adapters/page-socket.ts";
import type { PageDialer } from "../adapters/peer-dialer.ts";
import { lacksNothing } from "../policy/lacks-nothing.ts";
import { redialDelayMs } from "../policy/redial-delay.ts";
import {
  PageAttempt,
  type PageAttemptOptions,
  type PageLanes,
  type UnreadablePage,
} from "./page-attempt.ts";
import { PageTally, type PageCounters } from "./page-tally.ts";
import type { Push } from "./push.ts";
import { FramePool, type SentPageHashes } from "./stored-frame.ts";

export type { PageCounters, SentPageHashes, UnreadablePage };

/** A lost packet of the handshake is sent again after one second. */
const DIAL_MS_MAX = 3000;

export interface PageServiceOptions extends Omit<
  PageAttemptOptions,
  "pool" | "tally" | "bandwidthBytesPerSecond" | "push"
> {
  readonly dialer: PageDialer;
  /** The hand-over that it serves; the incarnation is that of the source's journal. */
  readonly about: Pick<
    ControlMessageOf<"pages-hello">,
    "migrationId" | "epoch" | "generation" | "incarnation"
  >;
  readonly bandwidthBytesPerSecond: number | null;
  /** 0 to 1, without it. */
  readonly random: () => number;
  readonly logger: Logger;
}

export class PageService {
  readonly #options: PageServiceOptions;
  readonly #pool = new FramePool();
  readonly #tally: PageTally;
  readonly #stop = new AbortController();
  #bandwidthBytesPerSecond: number | null;
  #push: Push = { hot: [], isRestDue: false };
  #attempt: PageAttempt | null = null;
  /** Of the lanes. Those of an earlier life of this agent were dialled at an earlier time. */
  #attemptNumber: number;
  #remainingPages: number | null = null;
  /** Resolves when there is a first pair of lanes; not at all where none comes. */
  readonly connected: Promise<void>;
  readonly #connected = new Deferred();

  constructor(options: PageServiceOptions) {
    this.#options = options;
    this.connected = this.#connected.promise;
    this.#tally = new PageTally(options.store.pages);
    this.#bandwidthBytesPerSecond = options.bandwidthBytesPerSecond;
    this.#attemptNumber = options.clock.date().getTime();
  }

  get counters(): Readonly<PageCounters> {
    return this.#tally.counters;
  }

  /** What the dest still lacks, as far as it has said so; before that, all that is stored. */
  get remainingPages(): number {
    return this.#attempt?.remainingPages ?? this.#remainingPages ?? this.#options.store.pages.count;
  }

  /** There is a pair of lanes at present. */
  get isConnected(): boolean {
    return this.#attempt !== null;
  }

  /** What a vCPU waits for is exempt. */
  setBandwidthLimit(bytesPerSecond: number | null): void {
    this.#bandwidthBytesPerSecond = bytesPerSecond;
    this.#attempt?.setBandwidthLimit(bytesPerSecond);
  }

  /** What nobody waits for; none of it at first. */
  setPush(push: Partial<Push>): void {
    this.#push = { ...this.#push, ...push };
    this.#attempt?.setPush(this.#push);
  }

  /** Serves until `stop`; never rejects. */
  async run(): Promise<void> {
    const { random, logger, clock } = this.#options;
    // Attempts in a row that brought nothing.
    let fruitless = 0;
    while (!this.#isStopped()) {
      const lanes = await this.#dial();
      if (lanes !== null && (await this.#serve(lanes))) fruitless = 0;
      if (this.#isStopped()) break;
      await sleep(clock, redialDelayMs(fruitless++, random), this.#stop.signal);
    }
    logger.info(this.#tally.counters, "page lanes closed");
  }

  /** The dest has everything, or the guest is this side's again. */
  stop(): void {
    this.#stop.abort();
    this.#attempt?.close();
  }

  /** Until the lanes are lost. Resolves with whether they were of use. */
  async #serve(lanes: PageLanes): Promise<boolean> {
    const { logger } = this.#options;
    const attempt = new PageAttempt(lanes, {
      ...this.#options,
      pool: this.#pool,
      tally: this.#tally,
      bandwidthBytesPerSecond: this.#bandwidthBytesPerSecond,
      push: this.#push,
    });
    this.#attempt = attempt;
    if (this.#connected.settled) this.#tally.counters.reconnects++;
    this.#connected.resolve();
    logger.info({ attempt: this.#attemptNumber }, "page lanes stand");
    const reason = await attempt.ended;
    this.#remainingPages = attempt.remainingPages ?? this.#remainingPages;
    this.#attempt = null;
    if (this.#isStopped()) return true;
    const { unplacedPages } = attempt;
    const { resentPages } = this.#tally.counters;
    const lost = { reason: reason.message, unplacedPages, resentPages };
    if (lacksNothing(reason)) logger.info(lost, "the dest says that it has all pages");
    else logger.warn(lost, "page lanes lost; dialling again");
    return attempt.isUseful;
  }

  /** Both lanes, or null where that cannot be had now. */
  async #dial(): Promise<PageLanes | null> {
    const { clock, logger } = this.#options;
    const attempt = ++this.#attemptNumber;
    const failed = new AbortController();
    const cancelTimer = clock.after(DIAL_MS_MAX, () => {
      failed.abort(new Error("the dest does not answer"));
    });
    const signal = AbortSignal.any([failed.signal, this.#stop.signal]);
    const opened: OpenPageLane[] = [];
    const open = async (lane: "urgent" | "background"): Promise<OpenPageLane> => {
      try {
        opened.push(await this.#options.dialer.pages(this.#hello(lane, attempt), signal));
        return opened.at(-1)!;
      } catch (error) {
        failed.abort(error);
        throw error;
      }
    };
    const dialled = await Promise.allSettled([open("urgent"), open("background")]);
    cancelTimer();
    const [urgent, background] = dialled;
    const isWhole = urgent.status === "fulfilled" && background.status === "fulfilled";
    if (isWhole && !this.#isStopped())
      return { urgent: urgent.value, background: background.value };
    for (const lane of opened) lane.close();
    const reason = messageOf(failed.signal.reason);
    if (!this.#isStopped()) logger.debug({ reason }, "no page lanes yet");
    return null;
  }

  #hello(lane: "urgent" | "background", attempt: number): ControlMessageOf<"pages-hello"> {
    const { migrationId, epoch, generation, incarnation } = this.#options.about;
    const about = { migrationId, epoch, generation, incarnation };
    return { kind: "pages-hello", version: limits.PROTOCOL_VERSION, ...about, lane, attempt };
  }

  #isStopped(): boolean {
    return this.#stop.signal.aborted;
  }
}
