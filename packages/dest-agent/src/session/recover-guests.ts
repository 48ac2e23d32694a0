/** After a start: the guests and hand-overs that an earlier life of this agent left behind. */
import { randomUUID } from "node:crypto";
import { assert, messageOf, type Clock } from "@vmferry/core";
import {
  hasWholeImage,
  isSilent,
  showSilentDoubt,
  type FoundGuest,
  type Guest,
  type GuestRecord,
  type GuestRegistry,
  type Journal,
  type JournalShelf,
  type Logger,
  type MigrationStore,
  type SilentGuest,
  type WitnessPort,
} from "@vmferry/agent";
import { recoverDest, type DestStep } from "@vmferry/protocol";
import type { Claim } from "./claim.ts";
import { holdAdopted, holdGone } from "./guest-holding.ts";
import { destRecordOf } from "./journal-records.ts";
import type { LazyDisks } from "./lazy-disks.ts";
import type { MemoryFetch } from "./memory-fetch.ts";
import { RecoveredArrival, type RecoveredDisks } from "./recovered-arrival.ts";
import { showEnded } from "./show-ended.ts";

export interface RecoverGuestsPorts {
  readonly registry: GuestRegistry;
  readonly store: MigrationStore;
  readonly journals: JournalShelf<"dest">;
  readonly imageDir: string;
  readonly witness: WitnessPort | null;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Null where no memory of it was arriving. */
  readonly fetchOf: (arrival: { migrationId: string; guest: string }) => MemoryFetch | null;
  /** Null where no disk of it follows. */
  readonly disksOf: (arrival: { migrationId: string; guest: string }) => LazyDisks | null;
}

interface Identity {
  readonly guest: string;
  readonly uuid: string;
}

export interface RecoveredGuests {
  readonly arrivals: readonly RecoveredArrival[];
  /**
   * Migrations of guests that cannot be judged yet; null where there are some of which not even that
   * is known. What they have of images is not to be touched.
   */
  readonly unjudged: readonly string[] | null;
}

/** What is known of one guest. */
interface Recovered {
  readonly arrival: RecoveredArrival | null;
  readonly unjudged: readonly string[] | null;
}

const NOTHING: Recovered = { arrival: null, unjudged: [] };
/** Of a guest of which nothing was ever promised. */
const NOTHING_TO_RECORD: Found["journal"] = {
  incarnation: "",
  append: () => Promise.reject(new Error("nothing is recorded of a guest that was not promised")),
  close: () => Promise.resolve(),
};
/** Of a hand-over that is not over, whatever its QEMU does. */
const OPEN_RECORDS: readonly string[] = ["reserved", "prepared", "taken"];

/**
 * Guests that nobody moves are this agent's again when this resolves. One whose QEMU does not answer
 * yet is told by `onLater`, if a session is needed, when it has.
 */
export async function recoverGuests(
  ports: RecoverGuestsPorts,
  onLater: (arrival: RecoveredArrival) => void,
): Promise<RecoveredGuests> {
  const { records, unreadable } = await ports.registry.findEarlier();
  const journals = await ports.journals.list();
  const byUuid = new Map(journals.map((identity) => [identity.uuid, identity]));
  const lone = journals.filter(
    ({ uuid, guest }) =>
      !unreadable.includes(guest) && !records.some((record) => record.uuid === uuid),
  );
  const recovered = [
    ...records.map((record) =>
      recoverRecord(ports, record, { identity: byUuid.get(record.uuid) ?? null, onLater }),
    ),
    ...lone.map((identity) => recoverLone(ports, identity)),
  ];
  // One that cannot be brought into order must not keep the others from it.
  const told = await Promise.all(
    recovered.map((one) =>
      one.catch((error: unknown): Recovered => {
        ports.logger.error({ err: error }, "a guest of an earlier life is left as it is");
        return { arrival: null, unjudged: null };
      }),
    ),
  );
  const unjudged = told.map((one) => one.unjudged);
  const isKnown = unreadable.length === 0 && !unjudged.includes(null);
  return {
    arrivals: told.map(({ arrival }) => arrival).filter((one) => one !== null),
    unjudged: isKnown ? unjudged.flatMap((ids) => ids ?? []) : null,
  };
}

async function recoverRecord(
  ports: RecoverGuestsPorts,
  record: GuestRecord,
  {
    identity,
    onLater,
  }: {
    readonly identity: Identity | null;
    readonly onLater: (arrival: RecoveredArrival) => void;
  },
): Promise<Recovered> {
  const { registry, logger } = ports;
  const journal = identity === null ? null : await takeJournal(ports, identity);
  const judge = (found: FoundGuest): Promise<RecoveredArrival | null> =>
    journal === "unreadable" ? leaveInDoubt(ports, found) : recoverFound(ports, found, journal);
  const seen = await registry.look(record);
  if (!isSilent(seen)) {
    return { arrival: await judge(seen), unjudged: journal === "unreadable" ? null : [] };
  }
  const stopped = async (): Promise<null> => {
    if (journal !== "unreadable") await journal?.close();
    return null;
  };
  void seen.found.then(judge, stopped).then(
    (arrival) => {
      if (arrival !== null) onLater(arrival);
    },
    (error: unknown) => {
      logger.error({ err: error }, "a guest of an earlier life is left as it is");
    },
  );
  if (journal === "unreadable") return { arrival: null, unjudged: null };
  return { arrival: null, unjudged: showSilent(ports, seen, journal) };
}

/** What the journal has left to do is shown, and waits until QEMU answers or is gone. */
function showSilent(
  { store }: RecoverGuestsPorts,
  silent: SilentGuest,
  journal: Journal<"dest"> | null,
): readonly string[] | null {
  const last = journal?.last ?? null;
  if (last === null) return null;
  const { migrationId: id, kind } = last;
  if (OPEN_RECORDS.includes(kind)) {
    showSilentDoubt(store, silent, { id, role: "dest", destination: "here" });
  }
  return [id];
}

/** Null where there is none that says anything. */
async function takeJournal(
  { journals, logger }: RecoverGuestsPorts,
  identity: Identity,
): Promise<Journal<"dest"> | "unreadable" | null> {
  try {
    const journal = await journals.take(identity);
    if (journal.last !== null) return journal;
    await journal.remove();
    return null;
  } catch (error) {
    const { guest } = identity;
    logger.error({ guest, err: error }, "the guest stays as it is: look at its journal");
    return "unreadable";
  }
}

async function leaveInDoubt(
  { registry }: RecoverGuestsPorts,
  found: FoundGuest,
): Promise<RecoveredArrival | null> {
  const { epoch } = found.record;
  if (found.process !== null)
    await registry.admit(found, { ownership: "in-doubt", epoch, busyWith: null });
  return null;
}

async function recoverFound(
  ports: RecoverGuestsPorts,
  found: FoundGuest,
  journal: Journal<"dest"> | null,
): Promise<RecoveredArrival | null> {
  const { registry, logger } = ports;
  const { stage, epoch, definition } = found.record;
  if (stage === "prepared") return recoverPrepared(ports, found);
  const identity = { guest: definition.name, uuid: found.record.uuid };
  if (journal !== null) return recoverOne(ports, identity, { journal, found });
  if (stage === "owned") {
    if (found.process === null) await registry.drop(found);
    else
      await bringBack(
        registry,
        await registry.admit(found, { ownership: null, epoch, busyWith: null }),
        logger,
      );
    return null;
  }
  // It arrived here, and there is no journal that says how far it came.
  const step = recoverDest({ last: null, qemu: found.qemu });
  // A QEMU that has not loaded anything was promised to nobody. A dead one may have been: where an
  // image is whole, a lost journal may have said that the guest is this host's, and nobody else's.
  const isVoid =
    step.state.phase === "none" &&
    (found.qemu !== "gone" || !(await hasWholeImage(definition.disks, ports.imageDir)));
  // Nobody knows this hand-over, so that nobody goes on with it but a person.
  const stun = { migrationId: randomUUID(), epoch, generation: 0 };
  const unknown = { found, claim: { stun, incarnation: randomUUID() }, isWitnessed: false };
  if (isVoid) {
    const kill: DestStep = { state: { phase: "none" }, actions: [{ do: "kill-guest" }] };
    return arrivalOf(ports, identity, { ...unknown, journal: NOTHING_TO_RECORD, step: kill });
  }
  logger.error({ guest: definition.name }, "no journal tells whose the guest is: it is lost");
  const begun = await ports.journals.take(identity);
  const unclear: DestStep = { state: { phase: "unclear", stun }, actions: [] };
  return arrivalOf(ports, identity, { ...unknown, journal: begun, step: unclear });
}

/** It waited for a guest, and nobody has offered one: it waits on, as whoever prepared it means it to. */
async function recoverPrepared(
  { registry, logger }: RecoverGuestsPorts,
  found: FoundGuest,
): Promise<null> {
  if (found.process !== null && found.qemu === "inmigrate") {
    await registry.admit(found, { ownership: "incoming", epoch: 0, busyWith: null });
    return null;
  }
  const { name } = found.record.definition;
  logger.warn(
    { guest: name, qemu: found.qemu },
    "a QEMU that was prepared waits no more: let go of",
  );
  await found.process?.detach();
  await registry.drop(found);
  return null;
}

/** Nothing but a journal: the guest is gone. */
async function recoverLone(ports: RecoverGuestsPorts, identity: Identity): Promise<Recovered> {
  const journal = await takeJournal(ports, identity);
  if (journal === null) return NOTHING;
  if (journal === "unreadable") return { arrival: null, unjudged: null };
  return { arrival: await recoverOne(ports, identity, { journal, found: null }), unjudged: [] };
}

async function recoverOne(
  ports: RecoverGuestsPorts,
  identity: Identity,
  { journal, found }: { readonly journal: Journal<"dest">; readonly found: FoundGuest | null },
): Promise<RecoveredArrival | null> {
  const { journals } = ports;
  const logger = ports.logger.child({ guest: identity.guest });
  const { last } = journal;
  assert(last !== null, "a journal that says nothing is none");
  // A guest that was started here after its namesake had left is nothing that a migration brought.
  const qemu = found?.qemu ?? "gone";
  const step = recoverDest({ last: destRecordOf(last), qemu });
  logger.info({ record: last.kind, qemu, ownership: step.state.phase }, "judged");
  const isOver =
    step.state.phase === "owner" || (step.state.phase === "refused" && last.kind === "refused");
  if (found === null && isOver && (await journals.isOld(identity, ports.clock.date()))) {
    await journal.remove();
    return null;
  }
  if (isOver) await showEnded(ports, journal);
  const { migrationId, epoch, generation, peerIncarnation: incarnation } = last;
  return arrivalOf(ports, identity, {
    ...{ found, journal, step },
    claim: { stun: { migrationId, epoch, generation }, incarnation },
    isWitnessed: last.kind === "prepared" && last.witness === true,
  });
}

interface Found {
  /** Null when nothing but the journal is left. */
  readonly found: FoundGuest | null;
  readonly journal: Pick<Journal<"dest">, "incarnation" | "append" | "close">;
  readonly claim: Claim;
  readonly step: DestStep;
  readonly isWitnessed: boolean;
}

async function arrivalOf(
  ports: RecoverGuestsPorts,
  identity: Identity,
  { found, journal, claim, step, isWitnessed }: Found,
): Promise<RecoveredArrival> {
  const { registry, imageDir, logger } = ports;
  const isOurs = step.state.phase === "owner" || step.state.phase === "fetching";
  const { epoch, migrationId: busyWith } = claim.stun;
  const known = { ownership: isOurs ? null : "incoming", epoch, busyWith } as const;
  const guest =
    found === null || found.process === null ? null : await registry.admit(found, known);
  if (guest !== null && isOurs) {
    await registry.keep(guest, epoch);
    await bringBack(registry, guest, logger);
  }
  const which = { migrationId: claim.stun.migrationId, guest: identity.guest };
  const disks = ports.disksOf(which);
  const abandon = async (): Promise<void> => {
    await disks?.abandon();
  };
  const holding =
    guest === null
      ? holdGone({
          abandon,
          disks: found?.record.definition.disks ?? [],
          imageDir,
          drop: async () => {
            if (found !== null) await registry.drop(found);
          },
        })
      : holdAdopted(guest, { registry, imageDir, abandon });
  const occupy = (migrationId: string | null): void => {
    if (guest !== null) guest.busyWith = migrationId;
  };
  const fetch = ports.fetchOf(which);
  if (guest !== null) fetch?.askBy(guest.process);
  const lazy = disks === null ? null : lazyOf(disks, guest);
  const arrival = { ...ports, ...identity, journal, holding, occupy, fetch, lazy };
  return new RecoveredArrival({ ...arrival, isWitnessed: () => isWitnessed }, claim, step);
}

function lazyOf(disks: LazyDisks, guest: Guest | null): RecoveredDisks {
  const isAlive = (): boolean => guest?.process.isRunning() === true;
  return {
    disks,
    whole: () => disks.whole({ qmp: guest?.qmp ?? null, isAlive }),
  };
}

async function bringBack(registry: GuestRegistry, guest: Guest, logger: Logger): Promise<void> {
  try {
    await registry.bringBack(guest);
  } catch (error) {
    logger.error({ reason: messageOf(error) }, "the guest could not be brought back; look at it");
  }
}
