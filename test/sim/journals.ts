/** The journal of one host's guest: on a disk that outlives the agents, reached through a life. */
import { Journal, type JournalShelf } from "../../packages/agent/src/index.ts";
import type { MigrationRole } from "@vmferry/protocol";
import type {
  JournalStorage,
  StoredJournal,
} from "../../packages/agent/src/journal/journal-storage.ts";
import { readJournal } from "../../packages/agent/src/journal/read-journal.ts";
import {
  SimulatedStorage,
  type Operation,
} from "../../packages/agent/src/journal/simulated-storage.ts";
import type { Life } from "./life.ts";
import { GUEST, GUEST_UUID, type Setting } from "./setting.ts";

export const identity = { guest: GUEST, uuid: GUEST_UUID } as const;
const RECORD_TYPE_AT = 3;

export class JournalDisk {
  readonly #setting: Setting;
  readonly #role: MigrationRole;
  #storage = new SimulatedStorage(null);
  /** The next one of these fails. */
  #failing: Operation | null = null;
  #lastKind: string | null = null;
  /** Somebody has taken the journal away: a person has to know. */
  wasLost = false;
  /** An operation has failed in this life: the agent has to be started anew. */
  hasFailed = false;

  constructor(setting: Setting, role: MigrationRole) {
    this.#setting = setting;
    this.#role = role;
  }

  /** Kind of the last record that is durable for sure. */
  get lastKind(): string | null {
    return this.#lastKind;
  }

  failNext(operation: Operation): void {
    this.#failing = operation;
  }

  /** A failure that was due does not come any more. */
  mend(): void {
    this.#failing = null;
  }

  lose(): void {
    this.wasLost ||= this.#storage.durable !== null;
    this.#replace(new SimulatedStorage(null));
  }

  agentDied(): void {
    this.#storage.agentDies();
    this.#failing = null;
    this.hasFailed = false;
  }

  /** Of what was not synced, any part may be there. */
  hostCrashed(): void {
    const { random } = this.#setting;
    const contents = this.#storage.afterCrash();
    this.#replace(new SimulatedStorage(random.pick(contents)));
    this.agentDied();
  }

  shelf<R extends MigrationRole>(
    life: Life,
    seen: ((journal: Journal<R>) => Journal<R>) | undefined,
  ): JournalShelf<R> {
    const { random } = this.#setting;
    this.#storage.onOperation = (operation) => {
      if (this.#failing !== operation) return;
      this.#failing = null;
      this.hasFailed = true;
      this.#setting.trace.note(`${this.#role} journal: ${operation} fails`);
      throw new Error(operation === "datasync" ? "EIO" : "ENOSPC");
    };
    const open = async (): Promise<Journal<R>> => {
      const journal = await Journal.open({
        path: `${this.#role}.journal`,
        identity: { role: this.#role as R, ...identity },
        storage: this.#through(life),
        newIncarnation: () => random.uuid(),
      });
      return seen?.(journal) ?? journal;
    };
    const shelf = {
      list: () => Promise.resolve(this.#storage.durable === null ? [] : [identity]),
      take: open,
      isOld: () => Promise.resolve(false),
      writtenAt: () => Promise.resolve(life.clock.date()),
    };
    return shelf as unknown as JournalShelf<R>;
  }

  #replace(storage: SimulatedStorage): void {
    storage.onOperation = this.#storage.onOperation;
    this.#storage = storage;
    this.#look();
  }

  /** Every operation takes its time, and an agent can die before it, in it and after it. */
  #through(life: Life): JournalStorage {
    const storage = this.#storage;
    const timed = this.#timed(life);
    const wrap = (file: StoredJournal): StoredJournal => ({
      sizeBytes: file.sizeBytes,
      read: () => timed("read", () => file.read()),
      write: (bytes, position) =>
        timed(`write ${bytes.readUInt8(RECORD_TYPE_AT)}`, () => file.write(bytes, position)),
      truncate: (bytes) => timed("truncate", () => file.truncate(bytes)),
      datasync: () => timed("datasync", () => file.datasync()),
      close: () => (life.isDead ? Promise.resolve() : file.close()),
    });
    const wrapMaybe = (file: StoredJournal | null): StoredJournal | null =>
      file === null ? null : wrap(file);
    // The lock goes with whoever dies in the middle of opening.
    const held = async <T extends StoredJournal | null>(opening: Promise<T>): Promise<T> => {
      const file = await opening;
      if (life.isDead) await file?.close();
      return file;
    };
    return {
      open: async () => wrapMaybe(await timed("open", () => held(storage.open()))),
      create: async (bytes) => wrapMaybe(await timed("create", () => held(storage.create(bytes)))),
      replace: async (bytes) => wrap(await timed("replace", () => held(storage.replace(bytes)))),
      remove: () => timed("remove", () => storage.remove()),
    };
  }

  #timed(life: Life): <T>(name: string, act: () => Promise<T>) => Promise<T> {
    const { random } = this.#setting;
    return async (name, act) => {
      await life.sleep(random.spread(0.01, 2));
      if (!life.port(`${this.#role} journal ${name}`)) return new Promise(() => undefined);
      try {
        return await act();
      } finally {
        this.#look();
        await life.sleep(random.spread(0.01, 2));
      }
    };
  }

  /** What whoever comes after a crash of the host will find. */
  #look(): void {
    const { durable } = this.#storage;
    const kind = durable === null ? null : lastKindOf(durable, this.#role);
    if (kind === this.#lastKind) return;
    this.#lastKind = kind;
    this.#setting.trace.note(`${this.#role} journal says ${kind ?? "nothing"}`);
    this.#setting.onDurable(kind);
  }
}

function lastKindOf(bytes: Buffer, role: MigrationRole): string | null {
  const { records } = readJournal(bytes, { role, ...identity }, "durable");
  return records.at(-1)?.kind ?? null;
}
