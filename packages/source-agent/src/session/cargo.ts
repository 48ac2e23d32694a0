/**
 * What travels of a guest in one attempt, as the session sees it: its disks and its memory. Nothing
 * of the guest is touched before `load`.
 */
import { codeOf, type Clock } from "@vmferry/core";
import type { HeldSockets } from "@vmferry/block";
import type { Guest, Logger, MapSource } from "@vmferry/agent";
import {
  UNKNOWN_MAP,
  type ControlMessageOf,
  type MigrationLimits,
  type SourceOwnership,
} from "@vmferry/protocol";
import { LentSettings } from "../adapters/qemu-settings.ts";
import type { SourceQemu } from "../adapters/source-qemu.ts";
import type { OfferedDisk } from "../disk/open-disk.ts";
import type { LazyDeparture } from "../disk/lazy-departure.ts";
import { SourceDisks } from "../disk/source-disks.ts";
import type { BlockDialer, PageDialer } from "../adapters/peer-dialer.ts";
import { mayBeAskedFor, type MemoryRest } from "../postcopy/memory-rest.ts";
import { DataPath, type StateDigests } from "./data-path.ts";
import { DiskParting } from "./disk-parting.ts";
import type { MigrationPlan, OnWarning } from "./migration-plan.ts";
import type { PeerLink } from "./peer-link.ts";
import { PRECOPY_ONLY } from "./postcopy-check.ts";
import type { ProgressReport } from "./progress-report.ts";

export interface Cargo extends MapSource {
  readonly offered: OfferedDisk[];
  readonly anyToCopy: boolean;
  /** The dest has accepted: opens the way. Afterwards whatever fails is told by `onFailed`. */
  load(offer: ControlMessageOf<"offer">, peer: PeerLink): Promise<void>;
  copyDisks(): Promise<void>;
  /** Memory, until QEMU has stunned the guest; resolves with when that was. */
  precopy(signal: AbortSignal): Promise<number>;
  /** Null where the dest can take memory after the hand-over, or has not been asked; else why not. */
  readonly postcopyRefusal: string | null;
  /** Pre-copy shall not wait for the link any more, or not at all: what is missing at the stun follows. */
  postcopy(): void;
  /** Memory that the dest has to be served after the hand-over; null where it has all of it. */
  readonly rest: Pick<MemoryRest, "progress" | "digest" | "handedOver"> | null;
  /** Disks that the dest has to be served after the hand-over; null without any. */
  readonly diskRest: Pick<LazyDeparture, "progress"> | null;
  /** QEMU has let go of its disks: those that follow the guest it does not get back by a `cont`. */
  fenceDisks(): Promise<void>;
  /** The guest is the dest's, or may be: what the dest lacks of the disks is served from now on. */
  serveDisks(): void;
  /** The vCPUs stand still: no write comes after this. QEMU must not give up its disks before. */
  hold(): Promise<void>;
  /** Sends what is left, and tells what the dest has to have then. */
  finish(): Promise<StateDigests>;
  /** Behind it: an agent that starts anew finds what the dest may ask for after the hand-over. */
  restKept(): Promise<void>;
  forwardShut(): void;
  returnPath(bytes: Uint8Array): void;
  /** The dest has room for so many more bytes. */
  acknowledged(bytes: number): void;
  setBandwidthLimit(bytesPerSecond: number | null): void;
  /** The guest is handed over in `epoch`: from now on nobody may take its images for its disks. */
  handOver(epoch: number): void;
  /** The guest is to run here: it may write to its disks. */
  release(): void;
  /** Nothing is sent any more. Before SHUT was forwarded QEMU then resumes the guest by itself. */
  close(): Promise<void>;
  /** The attempt is over: what becomes of the disks. */
  part(state: SourceOwnership): Promise<void>;
}

export interface CargoOptions {
  readonly plan: MigrationPlan;
  readonly qemu: SourceQemu;
  readonly limits: () => MigrationLimits;
  readonly report: ProgressReport;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Directory of the migration's sockets. */
  readonly runDir: string;
  /** Of exports that QEMU is to find again when this agent has died. */
  readonly sockets: HeldSockets;
  /** Where memory is kept that follows the guest. */
  readonly memoryDir: string;
  /** By which memory may follow, too; null where there is none. */
  readonly sharedDir: string | null;
  readonly random: () => number;
  readonly dialPages: PageDialer & BlockDialer;
  readonly imageDir: string;
  readonly onWarning: OnWarning;
  readonly onFailed: (error: unknown) => void;
}

const REASON_MS_MAX = 200;

/** Looks at the disks of a guest that runs here. */
export async function openCargo(guest: Guest, options: CargoOptions): Promise<Cargo> {
  const { qemu, clock, logger } = options;
  const { id: migrationId } = options.plan;
  const disks = await openDisks(guest, options);
  const parting = new DiskParting({ disks, migrationId, guest, qemu, clock, logger });
  let data: DataPath | null = null;
  const settings = new LentSettings(guest, logger);
  const onFailed = withReason(options);
  return {
    offered: disks.offered,
    anyToCopy: disks.anyToCopy,
    load: async (offer, peer) => {
      await settings.remember();
      data = await DataPath.open({ ...options, onFailed, qmp: guest.qmp, offer, peer, disks });
      // One that came meanwhile.
      data.transport.out.setBandwidthLimit(options.limits().bandwidthBytesPerSecond);
    },
    map: (cells) => data?.map(cells) ?? UNKNOWN_MAP,
    copyDisks: () => data!.copyDisks(),
    precopy: (signal) => data!.precopy(qemu, signal),
    get postcopyRefusal() {
      if (data !== null) return data.postcopyRefusal;
      return options.plan.mode === "pre-copy" ? PRECOPY_ONLY : null;
    },
    postcopy: () => {
      data?.postcopy();
    },
    get rest() {
      return data?.rest ?? null;
    },
    get diskRest() {
      return data?.lazy ?? null;
    },
    fenceDisks: () => data?.lazy?.fence() ?? Promise.resolve(),
    serveDisks: () => {
      data?.lazy?.serve();
    },
    hold: () => data!.hold(),
    finish: () => data!.finish(),
    restKept: () => data!.restKept,
    forwardShut: () => {
      data!.ram.forwardShut();
    },
    returnPath: (bytes) => {
      data?.ram.returnPath(bytes);
    },
    acknowledged: (bytes) => {
      data?.acknowledged(bytes);
    },
    setBandwidthLimit: (bytesPerSecond) => {
      data?.transport.out.setBandwidthLimit(bytesPerSecond);
      data?.rest?.setBandwidthLimit(bytesPerSecond);
      data?.lazy?.setBandwidthLimit(bytesPerSecond);
    },
    handOver: (epoch) => {
      parting.handOver(epoch);
    },
    release: disks.release.bind(disks),
    close: async () => {
      await data?.close();
    },
    part: async (state) => {
      if (!mayBeAskedFor(state)) {
        await data?.rest?.discard();
        await data?.lazy?.discard();
      }
      await parting.part(state);
      if (state.phase === "owner") await settings.giveBack();
    },
  };
}

function openDisks(
  { definition, process, attachment }: Guest,
  { plan, runDir, imageDir }: CargoOptions,
): Promise<SourceDisks> {
  return SourceDisks.open(definition.disks, {
    ...{ imageDir, spoolDir: runDir, migrationId: plan.id },
    guestDir: process.paths.directory,
    lazy: plan.disk.handover === "lazy",
    attachedBytes: attachment?.diskBytes ?? null,
  });
}

/** The death of QEMU closes its stream and its monitor, in any order; the monitor tells more. */
function withReason({
  clock,
  onFailed,
}: Pick<CargoOptions, "clock" | "onFailed">): (error: unknown) => void {
  return (error) => {
    if (codeOf(error) !== "stream-truncated") onFailed(error);
    else
      clock.after(REASON_MS_MAX, () => {
        onFailed(error);
      });
  };
}
