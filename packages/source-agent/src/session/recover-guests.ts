/** After a start: the guests and hand-overs that an earlier life of this agent left behind. */
import { randomUUID } from "node:crypto";
import { growingDelay, messageOf, sleep, type Clock } from "@vmferry/core";
import {
  acceptImages,
  isSilent,
  markImagesLeft,
  showSilentDoubt,
  type FoundGuest,
  type Guest,
  type GuestRecord,
  type GuestRegistry,
  type Journal,
  type JournalRecordOf,
  type JournalShelf,
  type Logger,
  type MigrationStore,
  type SilentGuest,
  type WitnessPort,
} from "@vmferry/agent";
import { ImageFile } from "@vmferry/block";
import {
  recoverSource,
  type GuestDisk,
  type SourceRecord,
  type SourceStep,
  type StunRef,
} from "@vmferry/protocol";
import { resolveImage } from "@vmferry/qemu";
import { SourceQemu } from "../adapters/source-qemu.ts";
import { sourceRecordOf } from "./journal-records.ts";
import { OPEN_RECORDS } from "./open-hand-overs.ts";
import { showEnded } from "./show-ended.ts";
import type { RecoveredSessionPorts } from "./recovered-session.ts";

const BRING_BACK_AGAIN = { msMin: 1000, msMax: 30_000 };

/** Of which no journal tells. */
const AN_EARLIER_ONE = "an earlier migration";

export interface RecoverGuestsPorts {
  readonly registry: GuestRegistry;
  readonly store: MigrationStore;
  readonly journals: JournalShelf<"source">;
  readonly imageDir: string;
  readonly witness: WitnessPort | null;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What is left to do of one hand-over. */
export interface LeftHandOver {
  readonly stun: StunRef;
  readonly step: SourceStep;
  readonly ports: Pick<
    RecoveredSessionPorts,
    "guest" | "qemu" | "journal" | "closeJournal" | "peer" | "witness" | "bringBack" | "markLeft"
  >;
}

interface Identity {
  readonly guest: string;
  readonly uuid: string;
}

/**
 * Guests that nobody moves are this agent's again when this resolves; the others are for a session.
 * One whose QEMU does not answer yet is told by `onLater`, if a session is needed, when it has.
 */
export async function recoverGuests(
  ports: RecoverGuestsPorts,
  onLater: (left: LeftHandOver) => void,
): Promise<LeftHandOver[]> {
  const { records, unreadable } = await ports.registry.findEarlier();
  const journals = await ports.journals.list();
  const uuids = new Set(journals.map(({ uuid }) => uuid));
  const alone = journals.filter(
    ({ uuid, guest }) =>
      !unreadable.includes(guest) && !records.some((record) => record.uuid === uuid),
  );
  // One that cannot be brought into order must not keep the others from it.
  const told = (one: Promise<LeftHandOver | null>): Promise<LeftHandOver | null> =>
    one.catch((error: unknown) => {
      ports.logger.error({ err: error }, "a guest of an earlier life is left as it is");
      return null;
    });
  const left = [
    ...records.map((record) =>
      recoverRecord(ports, record, {
        hasJournal: uuids.has(record.uuid),
        onLater: (later) => {
          void told(later).then((one) => {
            if (one !== null) onLater(one);
          });
        },
      }),
    ),
    ...alone.map((identity) => recoverAlone(ports, identity)),
  ];
  return (await Promise.all(left.map(told))).filter((one) => one !== null);
}

type FoundJournal = Journal<"source"> | "unreadable" | null;

async function recoverRecord(
  ports: RecoverGuestsPorts,
  record: GuestRecord,
  {
    hasJournal,
    onLater,
  }: {
    readonly hasJournal: boolean;
    readonly onLater: (left: Promise<LeftHandOver | null>) => void;
  },
): Promise<LeftHandOver | null> {
  const { registry } = ports;
  const journal = hasJournal ? await takeJournal(ports, record) : null;
  // A guest that was given away must not write to its disks here, and one that nobody knows neither.
  if (journal !== "unreadable" && isOursToRun(lastOf(journal))) await registry.reopenDisks(record);
  const seen = await registry.look(record);
  if (!isSilent(seen)) return recoverFound(ports, seen, journal);
  if (journal !== "unreadable") showSilent(ports, seen, journal);
  const stopped = async (): Promise<null> => {
    if (journal !== "unreadable") await journal?.close();
    return null;
  };
  onLater(seen.found.then((found) => recoverFound(ports, found, journal), stopped));
  return null;
}

async function takeJournal(
  { journals, logger }: RecoverGuestsPorts,
  { definition: { name: guest }, uuid }: GuestRecord,
): Promise<FoundJournal> {
  try {
    return await journals.take({ guest, uuid });
  } catch (error) {
    // Without it nobody knows whose the guest is.
    logger.error({ guest, err: error }, "the guest stays as it is: look at its journal");
    return "unreadable";
  }
}

function lastOf(journal: Journal<"source"> | null): SourceRecord | null {
  return journal === null || journal.last === null ? null : sourceRecordOf(journal.last);
}

function isOursToRun(last: SourceRecord | null): boolean {
  const record = last?.record;
  return record !== "handed-off" && record !== "released" && record !== "done";
}

/** What the journal has left to do is shown, and waits until QEMU answers or is gone. */
function showSilent(
  { store }: RecoverGuestsPorts,
  silent: SilentGuest,
  journal: Journal<"source"> | null,
): void {
  const last = journal?.last ?? null;
  if (last === null || !OPEN_RECORDS.includes(last.kind)) return;
  const { migrationId: id, peer: destination } = last;
  showSilentDoubt(store, silent, { id, role: "source", destination });
}

async function recoverFound(
  ports: RecoverGuestsPorts,
  found: FoundGuest,
  taken: FoundJournal,
): Promise<LeftHandOver | null> {
  const { registry } = ports;
  const { definition, uuid, epoch } = found.record;
  const logger = ports.logger.child({ guest: definition.name });
  if (taken === "unreadable") {
    if (found.process !== null)
      await registry.admit(found, { ownership: "in-doubt", epoch, busyWith: null });
    return null;
  }
  let journal = taken;
  const last = lastOf(journal);
  const step = recoverSource({ last, qemu: found.qemu, epoch });
  const { state, actions } = step;
  logger.info({ record: last?.record ?? null, qemu: found.qemu, ownership: state.phase }, "judged");
  const isOurs = state.phase === "owner";
  const comesBack = state.phase === "rolling-back" || state.phase === "reclaimed";
  const ownership = isOurs || comesBack ? null : "in-doubt";
  const busyWith = journal?.last?.migrationId ?? AN_EARLIER_ONE;
  const known = { ownership, epoch: isOurs ? state.epoch : epoch, busyWith } as const;
  const guest = found.process === null ? null : await registry.admit(found, known);
  if (guest === null && last?.record === "reclaimed") {
    // It came back to images that may still be marked as left.
    await acceptImages(definition.disks, ports.imageDir);
  }
  if (guest === null && (isOurs || state.phase === "done")) await registry.drop(found);
  if (isOurs && actions.length === 0) {
    if (guest !== null) await bringBackSurely(ports, guest, logger);
    await journal?.close();
    if (journal !== null) await showEnded(ports, journal);
    return null;
  }
  const left = { step, guest, disks: definition.disks };
  if (journal !== null && journal.last !== null) {
    return leftHandOver(ports, { ...left, journal, last: journal.last });
  }
  logger.error("the guest stands still for a migration that no journal knows: a journal is lost");
  journal ??= await ports.journals.take({ guest: definition.name, uuid });
  return leftHandOver(ports, { ...left, ...unknownHandOver(epoch), journal });
}

/** What a person settles where the journal is lost: it may have given the next epoch away. */
function unknownHandOver(epoch: number): Pick<Left, "step" | "last"> {
  const stun = { migrationId: randomUUID(), epoch: epoch + 1, generation: 0 };
  return {
    step: { state: { phase: "unclear", stun, incarnation: null }, actions: [] },
    last: { kind: "begin", ...stun, peer: "unknown", peerIncarnation: null },
  };
}

/** Nothing but a journal: the guest is gone, and the dest may still have to be asked. */
async function recoverAlone(
  ports: RecoverGuestsPorts,
  identity: Identity,
): Promise<LeftHandOver | null> {
  const { journals, logger } = ports;
  try {
    const journal = await journals.take(identity);
    const last = journal.last === null ? null : sourceRecordOf(journal.last);
    const step = recoverSource({ last, qemu: "gone", epoch: 1 });
    const isOver = step.state.phase === "owner" || step.state.phase === "done";
    if (!isOver && journal.last !== null) {
      return leftHandOver(ports, { journal, last: journal.last, step, guest: null, disks: [] });
    }
    const isOld = await journals.isOld(identity, ports.clock.date());
    await showEnded(ports, journal);
    await (isOld ? journal.remove() : journal.close());
  } catch (error) {
    logger.error({ guest: identity.guest, reason: messageOf(error) }, "a journal stays as it is");
  }
  return null;
}

interface Left {
  readonly journal: Journal<"source">;
  readonly last: JournalRecordOf<"source">;
  readonly step: SourceStep;
  /** Null when its QEMU is gone. */
  readonly guest: Guest | null;
  readonly disks: readonly GuestDisk[];
}

function leftHandOver(
  { registry, imageDir, witness, clock, logger }: RecoverGuestsPorts,
  { journal, last, step, guest, disks }: Left,
): LeftHandOver {
  const isWitnessed = last.kind === "handed-off" && last.witness === true;
  const { migrationId, epoch, generation, peer } = last;
  return {
    stun: { migrationId, epoch, generation },
    step,
    ports: {
      guest: guest ?? new GoneGuest(journal.identity.guest, epoch - 1),
      qemu: guest === null ? NO_QEMU : new SourceQemu(guest.qmp, clock),
      journal,
      closeJournal: () => journal.close(),
      peer,
      witness: () => (isWitnessed ? witness : null),
      bringBack: async () => {
        if (guest !== null) return registry.bringBack(guest);
        // Dead, and ours: it may be started again from its images.
        await acceptImages([...disks], imageDir);
        return "nothing";
      },
      markLeft: async (owned) => {
        try {
          await markImagesLeft(await imagesOf(disks, imageDir), { migrationId, epoch: owned });
        } catch (error) {
          logger.error({ err: error }, "an image that the guest leaves could not be marked");
        }
      },
    },
  };
}

/**
 * The first attempt is waited for. While it does not succeed the guest runs through the export that
 * was opened again, if there was one, and nobody may migrate it: that would need its disks, too.
 */
async function bringBackSurely(
  { registry, clock }: RecoverGuestsPorts,
  guest: Guest,
  logger: Logger,
): Promise<void> {
  const attempt = async (): Promise<boolean> => {
    try {
      await registry.bringBack(guest);
      guest.busyWith = null;
      return true;
    } catch (error) {
      logger.error({ err: error }, "the guest could not be given its disks back yet");
      return false;
    }
  };
  const again = async (): Promise<void> => {
    const nextDelayMs = growingDelay(BRING_BACK_AGAIN);
    do {
      await sleep(clock, nextDelayMs());
    } while (guest.alive && !(await attempt()));
    guest.busyWith = null;
  };
  if (!(await attempt())) void again();
}

async function imagesOf(
  disks: readonly GuestDisk[],
  imageDirectory: string,
): Promise<{ readonly path: string; readonly sizeBytes: number }[]> {
  const copied = disks.filter(({ mode }) => mode === "copy");
  return Promise.all(
    copied.map(async ({ image: name }) => {
      const { path } = await resolveImage({ imageDirectory, name });
      const image = await ImageFile.open(path, { readOnly: true });
      await image.close();
      return { path, sizeBytes: image.sizeBytes };
    }),
  );
}

/** Of which only its name is left here. */
class GoneGuest {
  readonly name: string;
  readonly alive = false;
  busyWith: string | null = null;
  epoch: number;

  constructor(name: string, epoch: number) {
    this.name = name;
    this.epoch = epoch;
  }

  owned(epoch: number): void {
    this.epoch = epoch;
  }

  handedOff(): void {
    // Nothing shows it.
  }

  inDoubt(): void {
    // Nothing shows it.
  }

  end(): Promise<void> {
    return Promise.resolve();
  }
}

const NO_QEMU = {
  resume: () => Promise.resolve(),
  cont: () => Promise.resolve(),
  halt: () => Promise.resolve(),
  onEvent: () => () => undefined,
};
