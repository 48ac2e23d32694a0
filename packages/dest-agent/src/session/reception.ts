/**
 * What receives a guest: its images, a QEMU that waits for it, and what feeds both from the bulk
 * connections. `open` finds everything that can speak against the guest.
 */
import { join } from "node:path";
import {
  pageFileKeyOf,
  ProblemError,
  type Guest,
  type GuestRegistry,
  type Logger,
} from "@vmferry/agent";
import type { HeldSockets } from "@vmferry/block";
import type { Clock } from "@vmferry/core";
import type { Agreement, ControlMessageOf } from "@vmferry/protocol";
import { encodeReturnPath, type RamBlock, type RamSection } from "@vmferry/qemu";
import { IncomingQemu } from "../adapters/incoming-qemu.ts";
import { dropSection, keepSection } from "../adapters/kept-section.ts";
import { IncomingDisks } from "../disk/incoming-disks.ts";
import { openFetching, type Fetching } from "../postcopy/fetching.ts";
import type { SwitchOver } from "../postcopy/switch-over.ts";
import type { ArrivalCounters } from "./arrival-report.ts";
import type { StateDigests } from "./dest-hand-over-ports.ts";
import { holdGuest, type GuestHolding } from "./guest-holding.ts";
import { LazyDisks } from "./lazy-disks.ts";
import type { FetchingQemu } from "./memory-fetch.ts";
import { checkOffer, definitionOf } from "./offer-check.ts";
import type { BlocksOwner } from "./page-link.ts";
import { fitPrepared } from "./prepared-qemu.ts";
import { openReceivers } from "./receivers.ts";

export interface Reception {
  readonly qemuVersion: string;
  readonly holding: GuestHolding;
  readonly counters: ArrivalCounters;
  /** Why memory cannot come after the hand-over; empty where it can, or need not. */
  readonly postCopyRefusal: string;
  /** Disks that follow the guest; null without any. They stay open when the reception is closed. */
  readonly lazy: ArrivingLater | null;
  /** A frame of a bulk connection; throws what breaks the protocol. */
  arrived(connection: number, frame: Buffer): void;
  /**
   * Resolves when QEMU has loaded everything that comes before the hand-over, and the disks are
   * whole: with what that is.
   */
  load(onRamEnded: () => void): Promise<StateDigests>;
  /** What `onFetching` has told of has come. */
  memoryIsWhole(): void;
  /** Nothing is received any more; QEMU and the images stay. */
  close(): Promise<void>;
}

/** What a session has to do with disks that follow their guest. */
export interface ArrivingLater extends BlocksOwner, Pick<LazyDisks, "progress" | "isWhole"> {
  /** Resolves when nothing of them is missing any more, and QEMU has the images for itself. */
  whole(): Promise<void>;
}

export interface ReceptionOptions {
  readonly offer: ControlMessageOf<"offer">;
  readonly agreement: Agreement;
  readonly onReturnPath: (bytes: Buffer) => void;
  readonly onCredit: (bytes: number) => void;
  /**
   * Some of memory is missing, and QEMU takes it from now on: it may have to, for its devices to be
   * loaded. It stays open when the reception is closed.
   */
  readonly onFetching: (fetching: Fetching, qemu: FetchingQemu) => void;
  readonly onFailed: (error: unknown) => void;
  /** The same of a disk that follows a guest which runs here already. */
  readonly onLazyFailed: (error: unknown) => void;
  /** A disk that followed the guest stays behind the agent; null when none does. */
  readonly onLazyStuck: (reason: string | null) => void;
  /** Called before a rejection: a QEMU was started for the guest, and is the caller's to discard. */
  readonly onLeft: (holding: GuestHolding) => void;
}

export interface ReceptionPorts {
  readonly logger: Logger;
  readonly registry: GuestRegistry;
  readonly clock: Clock;
  readonly qemu: string;
  /** Directory of the migration's sockets. */
  readonly runDir: string;
  /** Of exports that outlive the agent. */
  readonly sockets: HeldSockets;
  readonly imageDir: string;
}

/** Rejects with why the guest cannot come; then nothing that was made for it stays but what `onLeft` was told of. */
export async function openReception(
  ports: ReceptionPorts,
  options: ReceptionOptions,
): Promise<Reception> {
  const { offer } = options;
  const prepared = ports.registry.prepared(offer.guest.name);
  if (prepared !== null) prepared.busyWith = offer.migrationId;
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
  if (prepared !== null) refuseLazy(offer);
  const definition = fit?.definition ?? definitionOf(offer);
  const compression = agreement.features.has("zstd");
  const disks = await IncomingDisks.prepare({
    definitions: definition.disks,
    offer,
    imageDir,
    preparedPid: prepared?.process.pid ?? null,
    compression,
    clock,
    onFailed,
  });
  const lazy =
    disks.lazy.length === 0 ? null : LazyDisks.of(disks.lazy, offer, { ...ports, compression });
  const blocks = (): readonly RamBlock[] => receivers.ram.blocks;
  const start = (): Promise<Guest> => {
    const { epoch, accel, uuid } = offer;
    const about = { definition, accel, uuid, epoch };
    const { registry } = ports;
    if (prepared === null || fit === null) {
      return registry.launchIncoming(about, lazy?.backing ?? null);
    }
    return registry.takePrepared(prepared, { ...about, attachment: fit.attachment });
  };
  const { guest, qemu } = await launch({ ...ports, ...options, start, disks, lazy, blocks });
  if (lazy !== null) {
    lazy.onFailed = options.onLazyFailed;
    lazy.onStuck = options.onLazyStuck;
  }
  const postCopy = offer.postCopy && qemu.postCopyRefusal === "";
  const { sink } = qemu;
  const receivers = openReceivers({ offer, sink, disks, compression, postCopy, onCredit });
  return new QemuReception({ ...ports, ...options, guest, qemu, disks, lazy, receivers });
}

interface Parts extends Pick<ReceptionOptions, "offer" | "onFetching" | "onFailed"> {
  readonly clock: Clock;
  readonly guest: Guest;
  readonly qemu: IncomingQemu;
  readonly disks: IncomingDisks;
  readonly lazy: LazyDisks | null;
  readonly receivers: ReturnType<typeof openReceivers>;
  readonly registry: GuestRegistry;
}

class QemuReception implements Reception {
  readonly holding: GuestHolding;
  readonly counters: ArrivalCounters;
  readonly lazy: ArrivingLater | null;
  readonly #parts: Parts;
  /** Of the section. */
  #keeping: Promise<void> = Promise.resolve();
  #isFetching = false;
  #isFetched = false;

  constructor(parts: Parts) {
    const { guest, disks, lazy, receivers } = parts;
    this.#parts = parts;
    this.counters = { ...receivers, disks: disks.receiver };
    this.holding = holdArriving({ ...parts, keeping: () => this.#keeping });
    this.lazy = lazy === null ? null : arrivingLater(lazy, guest, this.#free.bind(this));
  }

  get qemuVersion(): string {
    return this.#parts.guest.qemuVersion;
  }

  get postCopyRefusal(): string {
    return this.#parts.qemu.postCopyRefusal;
  }

  arrived(connection: number, frame: Buffer): void {
    this.#parts.receivers.bulk.arrived(connection, frame);
  }

  async load(onRamEnded: () => void): Promise<StateDigests> {
    const { qemu, disks, lazy } = this.#parts;
    const { ram } = this.#parts.receivers;
    const fed = ram.run();
    // While memory travels: the guest that stands still later does not wait for it.
    const begun = lazy?.begin();
    begun?.catch(() => undefined);
    const arrived = disks.receiver?.ended ?? Promise.resolve([]);
    // As soon as that is known, for the guest that stands still waits for it.
    const sectionKept = ram.lacking.promise.then((section) => this.#keepSection(section));
    sectionKept.catch(this.#parts.onFailed);
    await Promise.race([ram.ramEnded.promise, fed, qemu.shut]);
    // QEMU loads the device state meanwhile.
    const ramDigest = ram.digest();
    onRamEnded();
    const { switchOver } = ram;
    const ready =
      switchOver === null ? qemu.loaded() : this.#packageLoaded(switchOver, sectionKept);
    const [diskDigests] = await Promise.all([arrived, Promise.race([ready, fed])]);
    await begun;
    await disks.unlock();
    return { ramDigest, diskDigests };
  }

  memoryIsWhole(): void {
    this.#isFetched = true;
    this.#free();
  }

  async close(): Promise<void> {
    this.#parts.receivers.ram.stop();
    if (this.#isFetching) return;
    await this.#parts.qemu.close();
    this.#parts.guest.busyWith = null;
  }

  /** Once nothing of the guest is missing any more, somebody else may have to do with it. */
  #free(): void {
    const { lazy, guest } = this.#parts;
    const isMemoryHere = !this.#isFetching || this.#isFetched;
    if (isMemoryHere && (lazy === null || lazy.isWhole)) guest.busyWith = null;
  }

  /** Before anybody is told that the guest could run: whoever takes it up needs the list. */
  #keepSection(section: RamSection): Promise<void> {
    const { qemu, offer, guest } = this.#parts;
    const { hasUrgentChannel } = qemu;
    const kept = { ...section, fileKey: pageFileKeyOf(offer), hasUrgentChannel };
    const about = { ...offer, generation: 1 };
    this.#keeping = keepSection(guest.process.paths.directory, about, kept);
    return this.#keeping;
  }

  async #packageLoaded(
    { section, hashes, missing }: SwitchOver,
    sectionKept: Promise<void>,
  ): Promise<void> {
    const { qemu, clock, receivers, guest, onFetching } = this.#parts;
    const { sink, shut } = qemu;
    const urgentSink = qemu.openUrgentChannel();
    const close = (): Promise<void> => qemu.close();
    const ways = { sink, urgentSink, shut, close };
    const fetching = openFetching({ section, hashes, missing, clock, ...ways });
    qemu.onRequest = (message) => {
      fetching.requests.asked(message);
    };
    await sectionKept;
    await Promise.race([receivers.ram.packaged.promise, shut]);
    this.#isFetching = true;
    onFetching(fetching, guest.process);
    await qemu.packageLoaded();
  }
}

/** `qemu`: null where it did not come to listen. */
function holdArriving({
  guest,
  qemu,
  disks,
  lazy,
  registry,
  keeping = () => Promise.resolve(),
}: Pick<Parts, "guest" | "disks" | "lazy" | "registry"> & {
  readonly qemu: IncomingQemu | null;
  readonly keeping?: () => Promise<void>;
}): GuestHolding {
  return holdGuest({
    guest,
    registry,
    keepDisks: () => disks.keep(),
    discardDisks: async () => {
      await qemu?.close();
      await keeping().catch(() => undefined);
      await dropSection(guest.process.paths.directory);
      await lazy?.abandon();
      await disks.discard();
    },
  });
}

function arrivingLater(lazy: LazyDisks, guest: Guest, onWhole: () => void): ArrivingLater {
  return {
    claimMatches: (hello) => lazy.claimMatches(hello),
    attachBlocks: (attempt, link) => {
      lazy.attachBlocks(attempt, link);
    },
    get progress() {
      return lazy.progress;
    },
    get isWhole() {
      return lazy.isWhole;
    },
    whole: async () => {
      await lazy.whole({ qmp: guest.qmp, isAlive: () => guest.process.isRunning() });
      onWhole();
    },
  };
}

/** A QEMU that was prepared has its disks already: nobody can step between it and them. */
function refuseLazy({ guest, disks }: ControlMessageOf<"offer">): void {
  if (!disks.some(({ lazy }) => lazy === true)) return;
  throw new ProblemError(
    `Guest ${guest.name} arrives in a QEMU that was prepared for it, and disks cannot follow it ` +
      'there: leave out disk.handover "lazy".',
    { code: "not-available" },
  );
}

/**
 * A QEMU that waits for the guest; when none could be started, nothing that was made for it stays. One
 * that was prepared and could not be taken waits on.
 */
async function launch({
  registry,
  runDir,
  clock,
  offer,
  start,
  disks,
  lazy,
  blocks,
  onReturnPath,
  onLeft,
}: ReceptionPorts &
  ReceptionOptions & {
    readonly start: () => Promise<Guest>;
    readonly disks: IncomingDisks;
    readonly lazy: LazyDisks | null;
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
    if (guest !== null) onLeft(holdArriving({ guest, qemu: null, disks, lazy, registry }));
    else {
      await lazy?.abandon();
      await disks.giveUp();
    }
    throw error;
  }
}
