/** The migrations that leave this host: what the HTTP API asks of them. */
import { randomUUID } from "node:crypto";
import type { Clock } from "@vmferry/core";
import type { HeldSockets } from "@vmferry/block";
import {
  allowing,
  newMigrationObject,
  ProblemError,
  refuseFailed,
  type Guest,
  type GuestRegistry,
  type JournalShelf,
  type ListPage,
  type MigrationService,
  type MigrationStore,
  type Logger,
  type WitnessPort,
} from "@vmferry/agent";
import {
  isFinalPhase,
  traceIdOf,
  UNKNOWN_MAP,
  type Check,
  type MigrationLimitsPatch,
  type MigrationList,
  type MigrationMap,
  type MigrationObject,
  type MigrationRequest,
  type PreflightReport,
} from "@vmferry/protocol";
import { removeOldLeftDisks } from "../adapters/left-disks.ts";
import { PeerDialer, type PeerAddress } from "../adapters/peer-dialer.ts";
import { SourceQemu } from "../adapters/source-qemu.ts";
import { preflight } from "../preflight/preflight.ts";
import { removeOldRests } from "../postcopy/memory-rest.ts";
import { leftDiskRest } from "../disk/left-rest.ts";
import { storedRest } from "../postcopy/stored-rest.ts";
import { openCargo } from "./cargo.ts";
import { whatOnStall } from "./migration-plan.ts";
import { openHandOvers } from "./open-hand-overs.ts";
import type { Identity } from "./control-link.ts";
import type { LeavingSession } from "./leaving-session.ts";
import { assertFallback } from "./fallback-check.ts";
import { recoverGuests, type LeftHandOver } from "./recover-guests.ts";
import { RecoveredSession } from "./recovered-session.ts";
import type { SourceSessionPorts } from "./source-session-ports.ts";
import { SourceSession } from "./source-session.ts";

export interface SourceMigrationsPorts {
  readonly registry: GuestRegistry;
  readonly store: MigrationStore;
  readonly witness: WitnessPort | null;
  readonly journals: JournalShelf<"source">;
  readonly peers: ReadonlyMap<string, PeerAddress>;
  readonly identity: Identity;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly random: () => number;
  readonly runDir: string;
  readonly sockets: HeldSockets;
  readonly memoryDir: string;
  readonly imageDir: string;
  /** That both hosts mount; null where there is none. */
  readonly sharedDir: string | null;
  readonly bulkConnections: number;
}

interface Admitted {
  readonly guest: Guest;
  readonly address: PeerAddress;
}

export class SourceMigrations implements MigrationService {
  readonly #ports: SourceMigrationsPorts;
  readonly #running = new Map<string, { session: LeavingSession; ended: Promise<void> }>();
  #stopped = false;

  constructor(ports: SourceMigrationsPorts) {
    this.#ports = ports;
  }

  list(page: ListPage): MigrationList {
    return this.#ports.store.list(page);
  }

  get(id: string): MigrationObject {
    return this.#ports.store.get(id);
  }

  wait(id: string, timeoutMs: number, signal?: AbortSignal): Promise<MigrationObject> {
    return this.#ports.store.wait(id, timeoutMs, signal);
  }

  map(id: string, cells: number): MigrationMap {
    return this.#running.get(id)?.session.map(cells) ?? UNKNOWN_MAP;
  }

  async preflight(request: MigrationRequest): Promise<PreflightReport> {
    return { checks: await this.#checks(request, this.#admit(request)) };
  }

  async start(request: MigrationRequest, traceParent: string | null): Promise<MigrationObject> {
    const { store, clock } = this.#ports;
    const { guest, address } = this.#admit(request);
    const id = randomUUID();
    // Nobody begins another one, or powers it off, while it is looked at.
    guest.busyWith = id;
    try {
      refuseFailed(await this.#checks(request, { guest, address }));
      this.#refuseGone(guest);
    } catch (error) {
      guest.busyWith = null;
      throw error;
    }
    const { destination, mode, fallback, disk, limits } = request;
    const onStall = whatOnStall(request);
    const startedAt = clock.date();
    store.create(
      newMigrationObject({
        ...{ id, role: "source", guest: guest.name, destination, startedAt },
        traceId: traceIdOf(traceParent),
      }),
    );
    const session = new SourceSession(this.#sessionPorts(guest, new PeerDialer(address, clock)), {
      ...{ id, destination, mode, onStall, fallback, disk, limits, traceParent },
    });
    this.#follow(id, session);
    return store.get(id);
  }

  /** Finds the guests of an earlier life, and goes on with what it left undone. */
  async recover(): Promise<void> {
    const goOn = (left: LeftHandOver): void => {
      this.#goOn(left);
    };
    const { journals, logger, memoryDir, clock } = this.#ports;
    const open = await openHandOvers(journals, logger);
    if (open !== null) {
      await removeOldRests(memoryDir, { open, now: clock.date() });
      await removeOldLeftDisks(memoryDir, { open, now: clock.date() });
    }
    for (const left of await recoverGuests(this.#ports, goOn)) goOn(left);
  }

  async resolve(id: string, owner: "source" | "dest"): Promise<MigrationObject> {
    const object = this.#ports.store.get(id);
    const running = this.#running.get(id);
    if (running === undefined) {
      const why =
        object.phase === "in-doubt"
          ? (object.error?.detail ?? "Nobody can go on with it.")
          : `The migration is ${object.phase}: nothing is in doubt.`;
      throw new ProblemError(why, {
        code: "not-in-doubt",
      });
    }
    await running.session.settle(owner);
    return this.#ports.store.get(id);
  }

  cancel(id: string): Promise<MigrationObject> {
    const object = this.#ports.store.get(id);
    if (object.phase === "completed") {
      throw new ProblemError("The migration is completed; the guest runs at the destination.", {
        code: "past-hand-over",
      });
    }
    if (!isFinalPhase(object.phase)) this.#running.get(id)?.session.cancel();
    return Promise.resolve(this.#ports.store.get(id));
  }

  postcopy(id: string): Promise<MigrationObject> {
    const object = this.#ports.store.get(id);
    const running = this.#running.get(id);
    if (isFinalPhase(object.phase) || running === undefined) {
      throw new ProblemError("The migration has ended.", { code: "migration-ended" });
    }
    running.session.postcopy();
    return Promise.resolve(object);
  }

  setLimits(id: string, limits: MigrationLimitsPatch): Promise<MigrationObject> {
    const object = this.#ports.store.get(id);
    const running = this.#running.get(id);
    if (isFinalPhase(object.phase) || running === undefined) {
      throw new ProblemError("The migration has ended; its limits mean nothing any more.", {
        code: "migration-ended",
      });
    }
    running.session.setLimits(limits);
    return Promise.resolve(object);
  }

  /** Whose migration may be looked at and begun; throws why not. */
  #admit(request: MigrationRequest): Admitted {
    const { registry, peers } = this.#ports;
    assertFallback(request, this.#ports.sharedDir);
    const guest = registry.find(request.guest);
    const address = peers.get(request.destination);
    if (address === undefined) {
      const known = [...peers.keys()].join(", ") || "none";
      throw new ProblemError(
        `${request.destination} is not a configured peer; VMFERRY_PEERS names: ${known}.`,
        { code: "destination-unknown" },
      );
    }
    if (guest.busyWith !== null) {
      throw new ProblemError(`Guest ${guest.name} is being migrated already (${guest.busyWith}).`, {
        code: "migration-active",
      });
    }
    this.#refuseGone(guest);
    if (guest.attachment !== null && request.disk.handover === "lazy") {
      throw new ProblemError(
        `Guest ${guest.name} was attached, and disks of such a guest are whole before it goes: ` +
          'leave out disk.handover "lazy".',
        { code: "not-available" },
      );
    }
    return { guest, address };
  }

  #refuseGone(guest: Guest): void {
    if (this.#stopped) {
      throw new ProblemError("The agent is being stopped.", { code: "agent-stopped" });
    }
    if (guest.state === "running") return;
    throw new ProblemError(`Guest ${guest.name} is ${guest.state}; only a running one migrates.`, {
      code: "guest-not-running",
    });
  }

  async #checks(request: MigrationRequest, { guest, address }: Admitted): Promise<Check[]> {
    const { clock } = this.#ports;
    const dialer = new PeerDialer(address, clock);
    const logger = this.#ports.logger.child({ guest: guest.name });
    const checks = await preflight(request, guest, { ...this.#ports, dialer, address, logger });
    const found = allowing(checks, request.allowUnsafe);
    for (const { name, status, detail } of found) {
      if (status === "warn" || status === "fail")
        logger.warn({ name, status, detail }, "preflight");
    }
    return found;
  }

  #goOn({ stun, step, ports }: LeftHandOver): void {
    const { peers, clock, logger } = this.#ports;
    const { migrationId } = stun;
    const address = peers.get(ports.peer);
    const dialPages = address === undefined ? null : new PeerDialer(address, clock);
    const unknown = unknownPeer(ports.peer);
    const dialer = dialPages ?? { control: () => Promise.reject(unknown) };
    const peerRefusal = dialPages === null ? unknown.message : null;
    const child = logger.child({ migrationId, guest: ports.guest.name });
    const about = { ...stun, incarnation: ports.journal.incarnation };
    const rest = storedRest({ ...this.#ports, logger: child, dialPages, about });
    const left = { ...this.#ports, logger: child, about };
    const leftDisks = leftDiskRest({ ...left, dialer: dialPages });
    const common = { ...this.#ports, ...ports, dialer, peerRefusal, rest, leftDisks };
    this.#follow(migrationId, new RecoveredSession({ ...common, logger: child }, stun, step));
  }

  #follow(id: string, session: LeavingSession & { run(): Promise<void> }): void {
    const ended = session.run().finally(() => {
      this.#running.delete(id);
    });
    this.#running.set(id, { session, ended });
  }

  #sessionPorts(guest: Guest, dialer: PeerDialer): SourceSessionPorts {
    const { clock, journals } = this.#ports;
    const { runDir, sockets, memoryDir, sharedDir, imageDir, random } = this.#ports;
    const qemu = new SourceQemu(guest.qmp, clock);
    return {
      ...this.#ports,
      guest,
      dialer,
      qemu,
      openJournal: () => journals.take({ guest: guest.name, uuid: guest.uuid }),
      openCargo: (options) =>
        openCargo(guest, {
          ...{ ...options, qemu, runDir, sockets, memoryDir, sharedDir, imageDir, random },
          dialPages: dialer,
        }),
    };
  }

  /** Ends every attempt that may still end; their guests run on. */
  async stop(): Promise<void> {
    this.#stopped = true;
    const running = [...this.#running.values()];
    for (const { session } of running) session.stop();
    await Promise.all(running.map(({ ended }) => ended));
  }
}

/** A hand-over to a dest that the configuration does not name any more: nobody can be asked. */
function unknownPeer(name: string): ProblemError {
  return new ProblemError(
    `${name}, to which the guest was handed over, is not a configured peer any more.`,
    { code: "destination-unknown" },
  );
}
