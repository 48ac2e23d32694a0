/**
 * What the lazy disks of a guest have asked of the source and not been answered yet. It outlives the
 * links: what is open is asked for again on the next one, what the guest waits for first.
 */
import type { Clock } from "@vmferry/core";
import {
  ASK_UNITS_MAX,
  decodeBlockAnswer,
  encodeBlockMessage,
  KEPT_RUNS_MAX,
  Urgency,
  violation,
  type BlocksMessage,
  type UnitRun,
} from "@vmferry/protocol";
import { runsOf } from "./unit-range.ts";

/** A connection to the source; what is sent on a broken one is lost. */
export interface BlockLink {
  send(message: Buffer): void;
}

export interface UnitSink {
  /** Units that were asked for. Throws ProtocolError for what cannot be their content. */
  arrived(answer: BlocksMessage): void;
  verdict(equal: boolean): void;
}

/** What a disk has to say at its end. */
export interface DiskEnd {
  /** Ascending. */
  readonly kept: readonly UnitRun[];
  readonly digest: string;
}

interface Asked {
  urgent: boolean;
  /** Since when it is asked for, or waited for. */
  sinceMs: number;
  /** Answers that may come on this link. */
  answers: number;
  /** One has come: the others are of no use, and nobody asks again. */
  done: boolean;
}

interface FetchedDisk {
  readonly sink: UnitSink;
  readonly asked: Map<number, Asked>;
  end: DiskEnd | null;
}

export class BlockFetcher {
  readonly #clock: Clock;
  readonly #disks = new Map<number, FetchedDisk>();
  #link: BlockLink | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `disk`: its index in the offer. */
  join(disk: number, sink: UnitSink): void {
    this.#disks.set(disk, { sink, asked: new Map(), end: null });
  }

  /** Asks for units that are not asked for, or for such as nobody waited for until now. */
  ask(disk: number, run: UnitRun, urgency: Urgency): void {
    const { asked } = this.#of(disk);
    const urgent = urgency === Urgency.URGENT;
    const answers = this.#link === null ? 0 : 1;
    const sinceMs = this.#clock.nowMs();
    for (let unit = run.first; unit < run.first + run.count; unit++) {
      const known = asked.get(unit);
      const before = known?.answers ?? 0;
      if (known === undefined || known.done) {
        asked.set(unit, { urgent, sinceMs, answers: before + answers, done: false });
      } else {
        if (urgent && !known.urgent) known.sinceMs = sinceMs;
        known.urgent ||= urgent;
        known.answers += answers;
      }
    }
    this.#sendAsk(disk, run, urgency);
  }

  /** Every unit is there; the verdict goes to the sink, be it on a later link. */
  end(disk: number, end: DiskEnd): void {
    this.#of(disk).end = end;
    this.#sendEnd(disk, end);
  }

  attach(link: BlockLink): void {
    this.#link = link;
    for (const urgency of [Urgency.URGENT, Urgency.BACKGROUND]) {
      for (const [disk, { asked }] of this.#disks) this.#askAgain(disk, asked, urgency);
    }
    for (const [disk, { end }] of this.#disks) if (end !== null) this.#sendEnd(disk, end);
  }

  /** That link is broken. */
  detach(link: BlockLink): void {
    if (this.#link === link) this.#link = null;
  }

  /** A message on `link`. Throws ProtocolError: then the link is to be closed and detached. */
  received(link: BlockLink, message: Buffer): void {
    if (link !== this.#link) return;
    const answer = decodeBlockAnswer(message);
    const disk = this.#disks.get(answer.disk);
    if (disk === undefined) throw violation("answer about a disk that is not lazy");
    if (answer.kind === "verdict") {
      if (disk.end === null) throw violation("verdict on a disk that has not ended");
      disk.end = null;
      disk.sink.verdict(answer.equal);
      return;
    }
    for (let unit = answer.first; unit < answer.first + answer.count; unit++) {
      if ((disk.asked.get(unit)?.answers ?? 0) === 0) throw violation("answer to no question");
    }
    // A content that cannot be leaves the units asked for.
    disk.sink.arrived(answer);
    for (let unit = answer.first; unit < answer.first + answer.count; unit++) {
      this.#answered(disk, unit);
    }
  }

  /** Since when the guest has been waiting for the unit that it has waited for longest; null: for none. */
  waitingSinceMs(disk: number): number | null {
    let sinceMs: number | null = null;
    for (const asked of this.#of(disk).asked.values()) {
      if (asked.urgent) sinceMs = Math.min(sinceMs ?? Infinity, asked.sinceMs);
    }
    return sinceMs;
  }

  #answered({ asked }: FetchedDisk, unit: number): void {
    const known = asked.get(unit)!;
    known.answers -= 1;
    known.done = true;
    known.urgent = false;
    if (known.answers === 0) asked.delete(unit);
  }

  #askAgain(disk: number, asked: Map<number, Asked>, urgency: Urgency): void {
    const urgent = urgency === Urgency.URGENT;
    for (const [unit, { done }] of asked) if (done) asked.delete(unit);
    const units = [...asked].filter(([, each]) => each.urgent === urgent).map(([unit]) => unit);
    for (const unit of units) asked.get(unit)!.answers = 1;
    for (const run of runsOf(units)) this.#sendAsk(disk, run, urgency);
  }

  #sendAsk(disk: number, run: UnitRun, urgency: Urgency): void {
    for (let done = 0; done < run.count; done += ASK_UNITS_MAX) {
      const count = Math.min(ASK_UNITS_MAX, run.count - done);
      this.#send({ kind: "ask", disk, urgency, first: run.first + done, count });
    }
  }

  #sendEnd(disk: number, { kept, digest }: DiskEnd): void {
    for (let done = 0; done < kept.length; done += KEPT_RUNS_MAX) {
      this.#send({ kind: "kept", disk, runs: kept.slice(done, done + KEPT_RUNS_MAX) });
    }
    this.#send({ kind: "end", disk, digest });
  }

  #send(message: Parameters<typeof encodeBlockMessage>[0]): void {
    this.#link?.send(encodeBlockMessage(message));
  }

  #of(disk: number): FetchedDisk {
    return this.#disks.get(disk)!;
  }
}
