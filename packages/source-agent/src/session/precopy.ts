/**
 * Pre-copy: from `migrate` until QEMU has stunned the guest. Five times a second it looks at QEMU
 * and the link, tells QEMU how much may be dirty for the stun to fit the downtime budget, watches
 * for a stall, and reports progress.
 *
 * Exit contract: returns when the vCPUs stand still; throws while the guest runs.
 */
import { codeOf, Deferred, messageOf, type Clock } from "@vmferry/core";
import type { MigrationLimits } from "@vmferry/protocol";
import { migrationPassOf, migrationStatusOf, type QueryMigrate } from "@vmferry/qemu";
import type { SourceQemu } from "../adapters/source-qemu.ts";
import { StallWatch } from "../policy/stall-watch.ts";
import { planSwitchover, type SwitchoverPlan } from "../policy/switchover.ts";
import type { DiskTransfer } from "../disk/disk-transfer.ts";
import type { RamTransfer } from "../ram/ram-transfer.ts";
import type { Transport } from "../transport/transport.ts";
import type { MigrationPlan } from "./migration-plan.ts";
import { SessionError } from "./session-error.ts";

const TICK_MS = 200;
/** Questions in a row, each of which QEMU has ten seconds for. */
const UNANSWERED_MAX = 2;
const FORCED_DIRTY_BYTES = 2 ** 50;

export interface PrecopyProgress {
  readonly dirtyBytes: number;
  /** Null in the first pass: QEMU measures from one look at the bitmap to the next. */
  readonly dirtyBytesPerSecond: number | null;
  readonly plan: SwitchoverPlan;
}

export interface PrecopyPorts {
  readonly qemu: SourceQemu;
  readonly transfer: RamTransfer;
  readonly transport: Transport;
  /** Disks whose changes follow meanwhile; null where there are none. */
  readonly disks: DiskTransfer | null;
  readonly clock: Clock;
  readonly roundTripMs: () => number;
  /** May change while pre-copy runs. */
  readonly limits: () => MigrationLimits;
  readonly onProgress: (progress: PrecopyProgress) => void;
  readonly onWarning: (code: "not-converging", detail: string) => void;
}

export class Precopy {
  /** Monotonic time at which the vCPUs were seen standing still. */
  stunnedAtMs = 0;
  readonly #ports: PrecopyPorts;
  readonly #plan: MigrationPlan;
  readonly #stunned = new Deferred();
  readonly #stalls = new StallWatch();
  #passes = 0;
  #reconnects = 0;
  #unanswered = 0;
  #stallHandled = false;
  #thresholdBytes = 0;

  constructor(ports: PrecopyPorts, plan: MigrationPlan) {
    this.#ports = ports;
    this.#plan = plan;
  }

  async run(uri: string, signal: AbortSignal): Promise<void> {
    const { qemu, clock } = this.#ports;
    const ignore = qemu.onEvent((event) => {
      if (event.name === "STOP") this.stunnedAtMs = clock.nowMs();
      const status = migrationStatusOf(event);
      if (status === "pre-switchover") this.#stunned.resolve();
      if (status === "failed" || status === "cancelled") void this.#failed();
      if (migrationPassOf(event) !== null) void this.#ports.transfer.sender.refreshDigest();
    });
    const abort = (): void => {
      this.#stunned.reject(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
    try {
      signal.throwIfAborted();
      await qemu.migrate(uri);
      while (!this.#stunned.settled) {
        await Promise.race([this.#stunned.promise, this.#pause()]);
        await this.#tickAnswered();
      }
      await this.#stunned.promise;
    } finally {
      ignore();
      signal.removeEventListener("abort", abort);
    }
    this.#ports.transfer.sender.stunned();
  }

  /**
   * The monitor of a QEMU that stops the guest answers when all requests to its disks are done, and
   * some of them may wait for a link that is dead and that nobody knows to be.
   */
  async #tickAnswered(): Promise<void> {
    try {
      await this.#tick();
      this.#unanswered = 0;
    } catch (error) {
      if (codeOf(error) !== "qmp-timeout" || ++this.#unanswered > UNANSWERED_MAX) throw error;
    }
  }

  async #tick(): Promise<void> {
    if (this.#stunned.settled) return;
    const migration = await this.#ports.qemu.query();
    if (migration.ram === null || migration.status !== "active") return;
    const plan = this.#planNow(migration.ram.remainingBytes);
    await this.#applyPlan(plan);
    await this.#watchStall(migration, migration.ram);
    this.#ports.onProgress({
      dirtyBytes: migration.ram.remainingBytes,
      dirtyBytesPerSecond: dirtyBytesPerSecond(migration.ram),
      plan,
    });
  }

  #planNow(dirtyBytes: number): SwitchoverPlan {
    const { transfer, transport, disks } = this.#ports;
    const { cameAgainPages, cameHeldPages } = transfer.sender.counters;
    return planSwitchover({
      downtimeMsMax: this.#ports.limits().downtimeMsMax,
      linkBytesPerSecond: transport.out.rate.bytesPerSecond,
      roundTripMs: this.#ports.roundTripMs(),
      pendingBytes: transport.pendingBytes,
      wireShare: transport.wireShare,
      heldBytes: transfer.sender.heldBytes,
      diskBytes: disks?.restBytes ?? 0,
      diskSettleMs: disks?.settleMs ?? 0,
      dirtyBytes,
      dirtyHeldShare: cameAgainPages === 0 ? 0 : cameHeldPages / cameAgainPages,
    });
  }

  async #applyPlan(plan: SwitchoverPlan): Promise<void> {
    this.#ports.transfer.sender.setHeldBytesMax(plan.heldBytesMax);
    if (this.#thresholdBytes === FORCED_DIRTY_BYTES) return;
    // A guest that is stunned while the link is away would stand still until it is back.
    const dirtyBytesMax = this.#ports.transport.isAway ? 0 : plan.dirtyBytesMax;
    const change = Math.abs(dirtyBytesMax - this.#thresholdBytes);
    if (change <= this.#thresholdBytes * 0.05) return;
    this.#thresholdBytes = dirtyBytesMax;
    await this.#ports.qemu.setDirtyBytesMax(dirtyBytesMax);
  }

  async #watchStall(migration: QueryMigrate, ram: NonNullable<QueryMigrate["ram"]>): Promise<void> {
    const { clock, transfer, transport, disks } = this.#ports;
    if (transport.reconnects > this.#reconnects) {
      this.#reconnects = transport.reconnects;
      this.#stalls.restart();
    }
    if (ram.passes > this.#passes) {
      this.#passes = ram.passes;
      const memory = ram.remainingBytes + transfer.sender.heldBytes;
      const toSend = memory + transport.pendingBytes + (disks?.restBytes ?? 0);
      this.#stalls.passBegan(toSend, clock.nowMs());
    }
    if (this.#stallHandled || !this.#stalls.stalled(clock.nowMs())) return;
    this.#stallHandled = true;
    const detail = `after ${ram.passes} passes the guest still changes as fast as it travels`;
    switch (this.#plan.onStall) {
      case "cancel":
        throw new SessionError(detail, { code: "not-converging" });
      case "stun":
        this.#ports.onWarning("not-converging", `${detail}; stunning it all the same`);
        this.#thresholdBytes = FORCED_DIRTY_BYTES;
        await this.#ports.qemu.setDirtyBytesMax(FORCED_DIRTY_BYTES);
        return;
      case "throttle":
        this.#ports.onWarning("not-converging", `${detail}; throttling its vCPUs`);
        disks?.throttle();
        if (migration.cpuThrottlePercent === null || migration.cpuThrottlePercent === 0) {
          await this.#ports.qemu.throttle();
        }
    }
  }

  async #failed(): Promise<void> {
    const why = await this.#ports.qemu
      .query()
      .then(({ errorDescription }) => errorDescription ?? "it does not say why", messageOf);
    this.#stunned.reject(
      new SessionError(`QEMU gave the migration up: ${why}`, { code: "source-qemu-failed" }),
    );
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      this.#ports.clock.after(TICK_MS, resolve);
    });
  }
}

function dirtyBytesPerSecond(ram: NonNullable<QueryMigrate["ram"]>): number | null {
  return ram.passes < 2 ? null : ram.dirtyPagesPerSecond * ram.pageSizeBytes;
}
