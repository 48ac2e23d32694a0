/** The machines, journals and messages of one search, by their numbers in a world. */
import { assert } from "@vmferry/core";
import type { DestAction, DestEvent, DestOwnership, DestRecord } from "../dest-ownership.ts";
import type { SeenQemu } from "../seen-qemu.ts";
import type {
  SourceAction,
  SourceEvent,
  SourceOwnership,
  SourceRecord,
} from "../source-ownership.ts";
import { Machine, type Outcome } from "./machine.ts";
import { Messages } from "./messages.ts";
import { Names } from "./names.ts";
import type { Rules } from "./rules.ts";
import { Bag, Link, type Wire } from "./wire.ts";
import { ATTEMPTS_MAX, DestQemu, SourceQemu, WRITES_MAX, type World } from "./world.ts";

/** The epoch in which the guest was started at the source. */
const EPOCH = 1;

export class Model {
  readonly rules: Rules;
  readonly source: Machine<SourceOwnership, SourceEvent, SourceAction>;
  readonly dest: Machine<DestOwnership, DestEvent, DestAction>;
  readonly #sourceRecords = new Names<SourceRecord | null>(256);
  readonly #destRecords = new Names<DestRecord | null>(256);
  readonly wire: Wire;
  /** Events that came where their machine has no answer to them, over a wire that keeps the order. */
  readonly illegal = new Set<string>();
  readonly #recovered = new Map<string, Outcome>();

  constructor(rules: Rules) {
    const fits = rules.attemptsMax <= ATTEMPTS_MAX && rules.writesMax <= WRITES_MAX;
    assert(fits, "a world has room for all attempts and writes");
    this.rules = rules;
    this.source = new Machine({ phase: "owner", epoch: EPOCH }, rules.nextSource);
    // RUNNING tells people, and no machine.
    this.dest = new Machine(
      { phase: "none" },
      rules.nextDest,
      (action: DestAction) => action.do !== "send-running",
    );
    const messages = new Messages({ source: this.source.events, dest: this.dest.events });
    this.wire = rules.wire === "bag" ? new Bag(messages) : new Link(messages);
    this.#sourceRecords.idOf(null);
    this.#destRecords.idOf(null);
  }

  sourceRecord(id: number): SourceRecord | null {
    return this.#sourceRecords.at(id);
  }

  destRecord(id: number): DestRecord | null {
    return this.#destRecords.at(id);
  }

  numberSourceRecord(record: SourceRecord): number {
    return this.#sourceRecords.idOf(record);
  }

  numberDestRecord(record: DestRecord): number {
    return this.#destRecords.idOf(record);
  }

  /** What a restarted agent finds, and where that leads it. */
  sourceRecovered({ sourceJournal, sourceQemu }: World): Outcome {
    const key = `source ${sourceJournal} ${sourceQemu}`;
    return this.#remember(key, () => {
      const last = this.sourceRecord(sourceJournal);
      const found = { last, qemu: SOURCE_SEEN[sourceQemu], epoch: EPOCH };
      return this.source.number(this.rules.recoverSource(found));
    });
  }

  destRecovered({ destJournal, destQemu }: World): Outcome {
    const key = `dest ${destJournal} ${destQemu}`;
    return this.#remember(key, () => {
      const found = { last: this.destRecord(destJournal), qemu: DEST_SEEN[destQemu] };
      return this.dest.number(this.rules.recoverDest(found));
    });
  }

  #remember(key: string, ask: () => Outcome): Outcome {
    const known = this.#recovered.get(key) ?? ask();
    this.#recovered.set(key, known);
    return known;
  }
}

export function incarnationOf({ destLife }: World): string {
  return destLife === 0 ? "d1" : "d2";
}

const SOURCE_SEEN: Readonly<Record<SourceQemu, SeenQemu>> = {
  [SourceQemu.GONE]: "gone",
  [SourceQemu.RUNNING]: "running",
  [SourceQemu.SWITCHOVER]: "finish-migrate",
  [SourceQemu.FINISHING]: "finish-migrate",
  [SourceQemu.SHUT]: "finish-migrate",
  [SourceQemu.POSTMIGRATE]: "postmigrate",
};

const DEST_SEEN: Readonly<Record<DestQemu, SeenQemu>> = {
  [DestQemu.GONE]: "gone",
  [DestQemu.INCOMING]: "inmigrate",
  [DestQemu.PAUSED]: "paused",
  [DestQemu.RUNNING]: "running",
};
