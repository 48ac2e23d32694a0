/**
 * Bugs that others have had, or that are easy to make. Each is put between the production code and
 * the world, or into the world, and the simulation has to find what comes of it.
 */
import type { Channel, Journal, JournalRecordOf } from "../../packages/agent/src/index.ts";
import type { ControlMessage, ControlMessageOf, MigrationRole } from "@vmferry/protocol";
import type { Life } from "./life.ts";
import type { PlantedBug } from "./setting.ts";

/** A source that waits so long for an answer loses its patience. */
const PATIENCE_MS = 3000;

export const plantedBugs: Readonly<Record<string, PlantedBug>> = {
  /** TOKEN goes out before its record is durable. */
  "token-before-record": {
    sourceJournal: (journal) => early(journal, "handed-off"),
  },
  /** The guest is started before it is on record that it may have run. */
  "start-before-taken": {
    destJournal: (journal) => early(journal, "taken"),
  },
  /** REFUSED goes out before its record is durable. */
  "refused-before-record": {
    destJournal: (journal) => early(journal, "refused"),
  },
  /** What could not be recorded is done all the same. */
  "journal-failure-ignored": {
    sourceJournal: (journal) => carefree(journal),
    destJournal: (journal) => carefree(journal),
  },
  /** libvirt's and Propolis's: after a while without an answer the source goes on by itself. */
  "source-loses-patience": {
    sourceChannel: (channel, life) => impatient(channel, life),
  },
  /** A restarted source takes what was handed over for an attempt that can be rolled back. */
  "handed-off-taken-for-begun": {
    sourceJournal: (journal) => lastSeenAs(journal, "handed-off", "begin"),
  },
  /** A restarted dest refuses what it had taken. */
  "taken-taken-for-prepared": {
    destJournal: (journal) => lastSeenAs(journal, "taken", "reserved"),
  },
  /** A dest that knows nothing of the migration is believed to have refused it. */
  "stranger-is-believed": {
    sourceChannel: (channel) => believingStrangers(channel),
  },
  /** QEMU is started without `-S`. */
  "dest-autostarts": { destAutostarts: true },
  /** The last blocks stay behind, and the digest is over what travelled. */
  "last-blocks-forgotten": { forgetsLastBlocks: true },
  /** The source's QEMU ends when the guest is handed over, not when it has arrived. */
  "source-quits-early": { quitsAtHandOver: true },
  /** A refusal is told although its QEMU is still there. */
  "kill-failure-ignored": { takesKilledForDead: true },
  /** A link that is half open is never found out. */
  "no-heartbeat": { deafToSilence: true },
};

/** `append` of this record resolves at once, and is done behind the caller's back. */
function early<R extends MigrationRole>(journal: Journal<R>, kind: string): Journal<R> {
  return around(journal, {
    append: (record: JournalRecordOf<R>) => {
      const done = journal.append(record);
      if (record.kind !== kind) return done;
      done.catch(() => undefined);
      return Promise.resolve();
    },
  });
}

function carefree<R extends MigrationRole>(journal: Journal<R>): Journal<R> {
  return around(journal, {
    append: (record: JournalRecordOf<R>) => journal.append(record).catch(() => undefined),
  });
}

function lastSeenAs<R extends MigrationRole>(
  journal: Journal<R>,
  kind: string,
  seen: string,
): Journal<R> {
  const { last } = journal;
  return last?.kind === kind ? around(journal, { last: { ...last, kind: seen } }) : journal;
}

function around<T extends object>(target: T, changed: object): T {
  return new Proxy(target, {
    get: (_target, name) => {
      const from = name in changed ? changed : target;
      const value: unknown = Reflect.get(from, name, from);
      return typeof value === "function" ? (value.bind(from) as unknown) : value;
    },
  });
}

type Answer = ControlMessageOf<"refused">;

/** The refusal that a dest would send to who sent this. */
function refusalOf(asked: ControlMessageOf<"token" | "resume">, incarnation: string): Answer {
  const { migrationId, epoch, generation } = asked;
  const about = { migrationId, epoch, generation, incarnation };
  return { kind: "refused", ...about, code: "peer-refused", text: "a planted bug" };
}

/** Incarnations of dests, by the migration that they have prepared: what the planted bugs forge. */
const prepared = new Map<string, string>();

function remember(message: ControlMessage): void {
  if (message.kind === "prepared") prepared.set(message.migrationId, message.incarnation);
}

function impatient(channel: Channel, life: Life): Channel {
  let hear: ((message: ControlMessage) => void) | null = null;
  let isAnswered = false;
  return around(channel, {
    listen: (listener: (message: ControlMessage) => void) => {
      hear = listener;
      channel.listen((message) => {
        remember(message);
        isAnswered ||= message.kind === "taken" || message.kind === "refused";
        listener(message);
      });
    },
    send: (message: ControlMessage) => {
      channel.send(message);
      const incarnation = "migrationId" in message ? prepared.get(message.migrationId) : undefined;
      if (message.kind !== "token" || incarnation === undefined) return;
      life.later(PATIENCE_MS, () => {
        if (!isAnswered) hear?.(refusalOf(message, incarnation));
      });
    },
  });
}

function believingStrangers(channel: Channel): Channel {
  const asked: ControlMessageOf<"resume">[] = [];
  return around(channel, {
    listen: (listener: (message: ControlMessage) => void) => {
      channel.listen((message) => {
        remember(message);
        const about = asked.at(-1);
        const incarnation = about === undefined ? undefined : prepared.get(about.migrationId);
        if (message.kind !== "reject" || about === undefined || incarnation === undefined) {
          listener(message);
        } else listener(refusalOf(about, incarnation));
      });
    },
    send: (message: ControlMessage) => {
      if (message.kind === "resume") asked.push(message);
      channel.send(message);
    },
  });
}
