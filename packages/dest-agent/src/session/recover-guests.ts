/** After a start: the guests and hand-overs that an earlier life of this agent left behind. */
import { randomUUID } from "node:crypto";
import { messageOf, type Clock } from "@vmferry/core";
import {
  discardImages,
  type FoundGuest,
  type Guest,
  type GuestRegistry,
  type Journal,
  type JournalShelf,
  type Logger,
  type MigrationStore,
  type WitnessPort,
} from "@vmferry/agent";
import { recoverDest, type DestStep } from "@vmferry/protocol";
import type { Claim } from "./dest-hand-over.ts";
import { discardSurely, holdAdopted, holdGone, type GuestHolding } from "./guest-holding.ts";
import { destRecordOf } from "./journal-records.ts";
import type { RecoveredFetch } from "./recovered-fetch.ts";
import { RecoveredArrival } from "./recovered-arrival.ts";

export interface RecoverGuestsPorts {
  readonly registry: GuestRegistry;
  readonly store: MigrationStore;
  readonly journals: JournalShelf<"dest">;
  readonly imageDir: string;
  readonly witness: WitnessPort | null;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Null where no memory of it was arriving. */
  readonly fetchOf: (migrationId: string) => RecoveredFetch | null;
}

interface Identity {
  readonly guest: string;
  readonly uuid: string;
}

/** Guests that nobody moves are this agent's again when this resolves. */
export async function recoverGuests(ports: RecoverGuestsPorts): Promise<RecoveredArrival[]> {
  const found = await ports.registry.findEarlier();
  const journals = await ports.journals.list();
  const byUuid = new Map(journals.map((identity) => [identity.uuid, identity]));
  const lone = journals.filter(({ uuid }) => !found.some(({ record }) => record.uuid === uuid));
  const recovered = [
    ...found.map((one) => recoverFound(ports, one, byUuid.get(one.record.uuid) ?? null)),
    ...lone.map((identity) => recoverOne(ports, identity, null)),
  ];
  // One that cannot be brought into order must not keep the others from it.
  const told = recovered.map((one) =>
    one.catch((error: unknown) => {
      ports.logger.error({ err: error }, "a guest of an earlier life is left as it is");
      return null;
    }),
  );
  return (await Promise.all(told)).filter((one) => one !== null);
}

async function recoverFound(
  ports: RecoverGuestsPorts,
  found: FoundGuest,
  identity: Identity | null,
): Promise<RecoveredArrival | null> {
  const { registry, logger } = ports;
  const { stage, epoch, definition } = found.record;
  if (identity !== null) return recoverOne(ports, identity, found);
  if (stage === "owned") {
    if (found.process === null) await registry.drop(found);
    else await bringBack(registry, await registry.admit(found, { ownership: null, epoch }), logger);
    return null;
  }
  // It arrived here, and there is no journal that says how far it came.
  const { state } = recoverDest({ last: null, qemu: found.qemu });
  if (state.phase === "none") {
    // Nobody waits for it: a QEMU that does not end is ended again, and nothing was promised.
    discardSurely(unpromised(ports, found), ports).catch((error: unknown) => {
      logger.error({ err: error }, "what is left of a guest that was on its way stays");
    });
    return null;
  }
  logger.error({ guest: definition.name }, "no journal tells whose the guest is: it is lost");
  // Nobody knows this hand-over, so that nobody goes on with it but a person.
  const stun = { migrationId: randomUUID(), epoch, generation: 0 };
  const own = { guest: definition.name, uuid: found.record.uuid };
  const journal = await ports.journals.take(own);
  return arrivalOf(ports, own, {
    ...{ found, journal, isWitnessed: false },
    claim: { stun, incarnation: randomUUID() },
    step: { state: { phase: "unclear", stun }, actions: [] },
  });
}

/** A guest that was on its way, and of which the journal says nothing. */
function unpromised(
  { registry, imageDir }: RecoverGuestsPorts,
  found: FoundGuest,
): Pick<GuestHolding, "isAlive" | "discard"> {
  const { process, record } = found;
  return {
    isAlive: () => process?.isRunning() === true,
    discard: async () => {
      await process?.kill();
      await discardImages(record.definition.disks, imageDir);
      await registry.drop(found);
    },
  };
}

async function recoverOne(
  ports: RecoverGuestsPorts,
  identity: Identity,
  found: FoundGuest | null,
): Promise<RecoveredArrival | null> {
  const { registry, journals } = ports;
  const logger = ports.logger.child({ guest: identity.guest });
  let journal: Journal<"dest">;
  try {
    journal = await journals.take(identity);
  } catch (error) {
    logger.error({ err: error }, "the guest stays as it is: look at its journal");
    if (found !== null && found.process !== null) {
      await registry.admit(found, { ownership: "in-doubt", epoch: found.record.epoch });
    }
    return null;
  }
  const { last } = journal;
  if (last === null) {
    await journal.close();
    await journals.remove(identity);
    return found === null ? null : recoverFound(ports, found, null);
  }
  // A guest that was started here after its namesake had left is nothing that a migration brought.
  const qemu = found?.qemu ?? "gone";
  const step = recoverDest({ last: destRecordOf(last), qemu });
  logger.info({ record: last.kind, qemu, ownership: step.state.phase }, "judged");
  const isOver =
    step.state.phase === "owner" || (step.state.phase === "refused" && last.kind === "refused");
  if (found === null && isOver && (await journals.isOld(identity, ports.clock.date()))) {
    await journal.close();
    await journals.remove(identity);
    return null;
  }
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
  readonly journal: Journal<"dest">;
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
  const known = { ownership: isOurs ? null : "incoming", epoch: claim.stun.epoch } as const;
  const guest =
    found === null || found.process === null ? null : await registry.admit(found, known);
  if (guest !== null && isOurs) {
    await registry.keep(guest, claim.stun.epoch);
    await bringBack(registry, guest, logger);
  }
  const holding =
    guest === null
      ? holdGone({
          disks: found?.record.definition.disks ?? [],
          imageDir,
          drop: async () => {
            if (found !== null) await registry.drop(found);
          },
        })
      : holdAdopted(guest, { registry, imageDir });
  const occupy = (migrationId: string | null): void => {
    if (guest !== null) guest.busyWith = migrationId;
  };
  const fetch = ports.fetchOf(claim.stun.migrationId);
  const arrival = { ...ports, ...identity, journal, holding, occupy, fetch };
  return new RecoveredArrival({ ...arrival, isWitnessed: () => isWitnessed }, claim, step);
}

async function bringBack(registry: GuestRegistry, guest: Guest, logger: Logger): Promise<void> {
  try {
    await registry.bringBack(guest);
  } catch (error) {
    logger.error({ reason: messageOf(error) }, "the guest could not be brought back; look at it");
  }
}
