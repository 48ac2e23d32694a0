/**
 * What receives a guest: its images, a QEMU that waits for it, and what feeds both from the bulk
 * connections. `open` finds everything that can speak against the guest.
 */
import { join } from "node:path";
import type { Guest, GuestRegistry } from "@vmferry/agent";
import type { Clock } from "@vmferry/core";
import type { Agreement, ControlMessageOf } from "@vmferry/protocol";
import { encodeReturnPath, type RamBlock } from "@vmferry/qemu";
import { IncomingQemu } from "../adapters/incoming-qemu.ts";
import { keepSection } from "../adapters/kept-section.ts";
import { IncomingDisks } from "../disk/incoming-disks.ts";
import { openFetching, type Fetching } from "../postcopy/fetching.ts";
import type { SwitchOver } from "../postcopy/switch-over.ts";
import type { ArrivalCounters } from "./arrival-report.ts";
import type { StateDigests } from "./dest-hand-over.ts";
import { holdGuest, type GuestHolding } from "./guest-holding.ts";
import { checkOffer, definitionOf } from "./offer-check.ts";
import { fitPrepared } from "./prepared-qemu.ts";
import { openReceivers } from "./receivers.ts";

export interface Reception {
  readonly qemuVersion: string;
  readonly holding: GuestHolding;
  readonly counters: ArrivalCounters;
  /** Why memory cannot come after the hand-over; empty where it can, or need not. */
  readonly postCopyRefusal: string;
  /**
   * What is still to come of memory, from `onFetching` on; null where that was all of it. It stays
   * open when the reception is closed.
   */
  readonly fetching: Fetching | null;
  /** A frame of a bulk connection; throws what breaks the protocol. */
  arrived(connection: number, frame: Buffer): void;
  /**
   * Resolves when QEMU has loaded everything that comes before the hand-over, and the disks are
   * whole: with what that is.
   */
  load(onRamEnded: () => void): Promise<StateDigests>;
  /** Nothing is received any more; QEMU and the images stay. */
  close(): Promise<void>;
}

export interface ReceptionOptions {
  readonly offer: ControlMessageOf<"offer">;
  readonly agreement: Agreement;
  readonly onReturnPath: (bytes: Buffer) => void;
  readonly onCredit: (bytes: number) => void;
  /**
   * Some of memory is missing, and QEMU takes it from now on: it may have to, for its devices to be
   * loaded.
   */
  readonly onFetching: (fetching: Fetching) => void;
  readonly onFailed: (error: unknown) => void;
}

export interface ReceptionPorts {
  readonly registry: GuestRegistry;
  readonly clock: Clock;
  readonly qemu: string;
  /** Directory of the migration's sockets. */
  readonly runDir: string;
  readonly imageDir: string;
}

/** Rejects with why the guest cannot come; then nothing that was made for it stays. */
export async function openReception(
  ports: ReceptionPorts,
  options: ReceptionOptions,
): Promise<Reception> {
  const { offer } = options;
  const prepared = ports.registry.claimPrepared(offer.guest.name, offer.migrationId);
  try {
    return await openFor(prepared, ports, options);
  } catch (error) {
    // One that was not touched waits for the next offer.
    if (prepared !== null) prepared.busyWith = null;
    throw error;
  }
}

/** `prepared`: a QEMU that waits for this guest; null where one is to be launched. */
async function openFor(
  prepared: Guest | null,
  ports: ReceptionPorts,
  options: ReceptionOptions,
): Promise<Reception> {
  const { offer, agreement, onCredit, onFailed } = options;
  const { imageDir, clock } = ports;
  if (prepared === null) await checkOffer(offer, ports.qemu);
  const fit = prepared === null ? null : fitPrepared(offer, prepared);
  const definition = fit?.definition ?? definitionOf(offer);
  const compression = agreement.features.has("zstd");
  const disks = await IncomingDisks.prepare({
    definitions: definition.disks,
    offer,
    imageDir,
    prepared: prepared !== null,
    compression,
    clock,
    onInflated: (bytes) => {
      receivers.bulk.becomesGarbage(bytes);
    },
    onFailed,
  });
  const blocks = (): readonly RamBlock[] => receivers.ram.blocks;
  const start = (): Promise<Guest> => {
    const { epoch, accel, uuid } = offer;
    const about = { definition, accel, uuid, epoch };
    const { registry } = ports;
    if (prepared === null || fit === null) return registry.launchIncoming(about);
    return registry.takePrepared(prepared, { ...about, attachment: fit.attachment });
  };
  const { guest, qemu } = await launch({ ...ports, ...options, start, disks, blocks });
  const postCopy = offer.postCopy && qemu.postCopyRefusal === "";
  const { sink } = qemu;
  const receivers = openReceivers({ offer, sink, disks, compression, postCopy, onCredit });
  return new QemuReception({ ...ports, ...options, guest, qemu, disks, receivers });
}

interface Parts extends Pick<ReceptionOptions, "offer" | "onFetching"> {
  readonly clock: Clock;
  readonly guest: Guest;
  readonly qemu: IncomingQemu;
  readonly disks: IncomingDisks;
  readonly receivers: ReturnType<typeof openReceivers>;
  readonly registry: GuestRegistry;
}

class QemuReception implements Reception {
  readonly holding: GuestHolding;
  readonly counters: ArrivalCounters;
  readonly #parts: Parts;
  #fetching: Fetching | null = null;

  constructor(parts: Parts) {
    const { guest, qemu, disks, receivers, registry } = parts;
    this.#parts = parts;
    this.counters = { ...receivers, disks: disks.receiver };
    this.holding = holdGuest({
      guest,
      registry,
      keepDisks: () => disks.keep(),
      discardDisks: async () => {
        await qemu.close();
        await disks.discard();
      },
    });
  }

  get qemuVersion(): string {
    return this.#parts.guest.qemuVersion;
  }

  get postCopyRefusal(): string {
    return this.#parts.qemu.postCopyRefusal;
  }

  get fetching(): Fetching | null {
    return this.#fetching;
  }

  arrived(connection: number, frame: Buffer): void {
    this.#parts.receivers.bulk.arrived(connection, frame);
  }

  async load(onRamEnded: () => void): Promise<StateDigests> {
    const { qemu, disks } = this.#parts;
    const { ram } = this.#parts.receivers;
    const fed = ram.run();
    const arrived = disks.receiver?.ended ?? Promise.resolve([]);
    await Promise.race([ram.ramEnded.promise, fed, qemu.shut]);
    // QEMU loads the device state meanwhile.
    const ramDigest = ram.digest();
    onRamEnded();
    const { switchOver } = ram;
    const ready = switchOver === null ? qemu.loaded() : this.#packageLoaded(switchOver);
    const [diskDigests] = await Promise.all([arrived, Promise.race([ready, fed])]);
    await disks.unlock();
    return { ramDigest, diskDigests };
  }

  async close(): Promise<void> {
    this.#parts.receivers.ram.stop();
    if (this.#fetching !== null) return;
    await this.#parts.qemu.close();
    this.#parts.guest.busyWith = null;
  }

  async #packageLoaded({ section, hashes, missing }: SwitchOver): Promise<void> {
    const { qemu, guest, clock, offer, receivers, onFetching } = this.#parts;
    const { sink, shut } = qemu;
    const close = async (): Promise<void> => {
      await qemu.close();
      guest.busyWith = null;
    };
    const fetching = openFetching({ section, hashes, missing, sink, shut, clock, close });
    qemu.onRequest = (message) => {
      fetching.requests.asked(message);
    };
    // Before anybody is told that the guest could run: whoever takes it up needs the list.
    await keepSection(guest.process.paths.directory, { ...offer, generation: 1 }, section);
    await Promise.race([receivers.ram.packaged.promise, shut]);
    this.#fetching = fetching;
    onFetching(fetching);
    await qemu.packageLoaded();
  }
}

/** A QEMU that waits for the guest; when there is none, nothing that was made for it stays. */
async function launch({
  registry,
  runDir,
  clock,
  offer,
  start,
  disks,
  blocks,
  onReturnPath,
}: ReceptionPorts &
  ReceptionOptions & {
    readonly start: () => Promise<Guest>;
    readonly disks: IncomingDisks;
    readonly blocks: () => readonly RamBlock[];
  }): Promise<{ readonly guest: Guest; readonly qemu: IncomingQemu }> {
  const { migrationId } = offer;
  let guest: Guest | null = null;
  try {
    guest = await start();
    guest.busyWith = migrationId;
    const qemu = await IncomingQemu.open({
      qmp: guest.qmp,
      clock,
      socketPath: join(runDir, `${migrationId.slice(0, 8)}.in`),
      postCopy: offer.postCopy,
      canRecover: guest.process.standby !== null,
      blocks,
      onReturnPath: (message) => {
        onReturnPath(encodeReturnPath(message));
      },
    });
    return { guest, qemu };
  } catch (error) {
    if (guest?.alive === true) await guest.kill();
    if (guest !== null) await registry.forget(guest);
    await disks.discard();
    throw error;
  }
}
