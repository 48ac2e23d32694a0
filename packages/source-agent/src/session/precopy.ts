/**
 * Pre-copy: from `migrate` until QEMU has stunned the guest. Five times a second, and when a pass is
 * over, it looks at QEMU and the link, tells QEMU how much may be dirty for the stun to fit the
 * downtime budget, watches for a stall, and reports progress. Where post-copy is wanted it drains
 * QEMU into a store, so that the stun waits for the link no more.
 *
 * Exit contract: returns when the vCPUs stand still; throws while the guest runs.
 */
import { codeOf, Deferred, messageOf, type Clock } from "@vmferry/core";
import type { MigrationLimits } from "@vmferry/protocol";
import { migrationPassOf, migrationStatusOf, type QueryMigrate } from "@vmferry/qemu";
import type { SourceQemu, ThrottlePercent } from "../adapters/source-qemu.ts";
import { planDrain } from "../policy/drain.ts";
import { StallWatch } from "../policy/stall-watch.ts";
import { planSwitchover, type SwitchoverPlan } from "../policy/switchover.ts";
import type { DiskTransfer } from "../disk/disk-transfer.ts";
import type { DrainStart } from "../ram/drain.ts";
import type { RamTransfer } from "../ram/ram-transfer.ts";
import type { Transport } from "../transport/transport.ts";
import type { MigrationPlan, OnWarning } from "./migration-plan.ts";
import { Outrun } from "./outrun.ts";
import { SessionError } from "./session-error.ts";

const TICK_MS = 200;
/** Until QEMU has announced its memory to whoever wants the guest to go now. */
const SOON_MS = 10;
/** The end of a pass is looked at at once, where the last look is not as recent as this. */
const LOOK_MS_MIN = 50;
/** Questions in a row, each of which QEMU has ten seconds for. */
const UNANSWERED_MAX = 2;
const FORCED_DIRTY_BYTES = 2 ** 50;
/** A guest that dirties faster than it is drained, although it is throttled, is stunned all the same. */
const DRAIN_MS_MAX = 5000;
/** A vCPU runs for 10 ms at a time: with 80 % it stands still for 40 ms in between, which comes on top of the stun. */
const DRAIN_THROTTLE: ThrottlePercent = { first: 80, max: 80 };
/** Over less than this nothing is measured. */
const DRAIN_LOOK_MS_MIN = 50;
/** Before anything was measured: slower than any host. */
const DRAIN_BYTES_PER_SECOND_FIRST = 200 * 2 ** 20;

export interface PrecopyProgress {
  readonly dirtyBytes: number;
  /** Null in the first pass: QEMU measures from one look at the bitmap to the next. */
  readonly dirtyBytesPerSecond: number | null;
  readonly plan: SwitchoverPlan;
}

/** The way to hand the guest over without all of its memory. */
export interface Drainage {
  /** From then on QEMU does not wait for the link. Rejects where there is no room for a store. */
  begin(start: DrainStart): Promise<void>;
  /** Bytes that QEMU has sent so far. */
  readBytes(): number;
}

interface Drain {
  /** Since when nothing but the guest keeps it from its end: no first pass, and nothing cold. */
  sinceMs: number;
  /** When it was looked at. */
  seenMs: number;
  readBytes: number;
  /** The most that was seen. */
  bytesPerSecond: number;
  /** QEMU was told that it may be. */
  isThrottled: boolean;
}

export interface PrecopyPorts {
  readonly qemu: SourceQemu;
  readonly transfer: RamTransfer;
  readonly transport: Transport;
  /** Disks whose changes follow meanwhile; null where there are none. */
  readonly disks: DiskTransfer | null;
  /** Null where the dest cannot take memory after the hand-over. */
  readonly drainage: Drainage | null;
  readonly clock: Clock;
  readonly roundTripMs: () => number;
  /** May change while pre-copy runs. */
  readonly limits: () => MigrationLimits;
  readonly onProgress: (progress: PrecopyProgress) => void;
  readonly onWarning: OnWarning;
}

export class Precopy {
  /** Monotonic time at which the vCPUs were seen standing still. */
  stunnedAtMs = 0;
  readonly #ports: PrecopyPorts;
  readonly #plan: MigrationPlan;
  readonly #stunned = new Deferred();
  readonly #stalls = new StallWatch();
  /** Null where there is no way to drain. */
  readonly #outrun: Outrun | null;
  #passes = 0;
  /** Of QEMU, as of the last look. */
  #pass = 0;
  #reconnects = 0;
  #unanswered = 0;
  #stallHandled = false;
  #thresholdBytes = 0;
  #lookedMs = 0;
  #postcopyWanted = false;
  /** By somebody who does not want to wait for the link any more. */
  #goesNow = false;
  /** Null until QEMU is drained. */
  #drain: Drain | null = null;
  /** Ends the pause between two looks. */
  #wake: () => void = () => undefined;

  constructor(ports: PrecopyPorts, plan: MigrationPlan) {
    this.#ports = ports;
    this.#plan = plan;
    this.#postcopyWanted = plan.mode === "post-copy";
    const { qemu, transfer, drainage, clock } = ports;
    const readBytes = (): number => drainage?.readBytes() ?? 0;
    const waitedMs = (): number => transfer.waitedMs;
    this.#outrun = drainage === null ? null : new Outrun({ qemu, readBytes, waitedMs, clock });
  }

  /** The guest shall run at the dest as soon as can be. */
  postcopy(): void {
    this.#postcopyWanted = true;
    this.#goesNow = true;
    if (this.#drain !== null) this.#ports.transfer.goNow();
    this.#wake();
  }

  async run(uri: string, signal: AbortSignal): Promise<void> {
    const { qemu, clock } = this.#ports;
    const ignore = qemu.onEvent((event) => {
      if (event.name === "STOP") {
        this.stunnedAtMs = clock.nowMs();
        this.#ports.transfer.hurry();
      }
      const status = migrationStatusOf(event);
      if (status === "pre-switchover") this.#stunned.resolve();
      if (status === "failed" || status === "cancelled") void this.#failed();
      const pass = migrationPassOf(event);
      if (pass === null) return;
      if (pass > 2) this.#ports.transfer.secondPassOver();
      void this.#ports.transfer.sender.refreshDigest();
      // QEMU knows anew what is dirty, and what it sends before the stun or the drain may be sent twice.
      const isDue = clock.nowMs() - this.#lookedMs >= LOOK_MS_MIN;
      if (isDue || (this.#postcopyWanted && this.#drain === null)) this.#wake();
    });
    const abort = (): void => {
      this.#stunned.reject(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
    try {
      signal.throwIfAborted();
      await qemu.migrate(uri);
      // Begins to measure.
      if (this.#postcopyWanted && !this.#goesNow) await this.#outrun?.isSeen();
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
    this.#lookedMs = this.#ports.clock.nowMs();
    const migration = await this.#ports.qemu.query();
    if (migration.ram === null || migration.status !== "active") return;
    this.#pass = migration.ram.passes;
    if (this.#postcopyWanted && this.#drain === null) {
      const start = await this.#drainStart();
      if (start !== null) await this.#beginDrain(start);
    }
    const plan = this.#planNow(migration.ram.remainingBytes);
    await this.#applyPlan(plan);
    if (this.#drain === null) await this.#watchStall(migration, migration.ram);
    else await this.#watchDrain(this.#drain);
    this.#ports.onProgress({
      dirtyBytes: migration.ram.remainingBytes,
      dirtyBytesPerSecond: dirtyBytesPerSecond(migration.ram),
      plan,
    });
  }

  /** Before the second pass nothing is gained by a store, unless what goes over the link goes over it twice. */
  async #drainStart(): Promise<DrainStart | null> {
    // QEMU announces its memory first of all.
    if (this.#goesNow) return this.#ports.transfer.blocks === null ? null : "now";
    if (this.#pass > 1) return "second-pass";
    return (await this.#outrun?.isSeen()) === true ? "outrun" : null;
  }

  #planNow(dirtyBytes: number): SwitchoverPlan {
    const { transfer, transport, disks } = this.#ports;
    const { cameAgainPages, cameHeldPages } = transfer.sender.counters;
    const input = {
      downtimeMsMax: this.#ports.limits().downtimeMsMax,
      linkBytesPerSecond: transport.out.rate.bytesPerSecond,
      roundTripMs: this.#ports.roundTripMs(),
      pendingBytes: transport.pendingBytes,
      wireShare: transport.wireShare,
      diskBytes: disks?.restBytes ?? 0,
      diskSettleMs: disks?.settleMs ?? 0,
      dirtyBytes,
    };
    if (this.#drain !== null) {
      const { bytesPerSecond: readBytesPerSecond, sinceMs } = this.#drain;
      const elapsedMs = this.#ports.clock.nowMs() - sinceMs;
      return planDrain({ ...input, readBytesPerSecond, elapsedMs });
    }
    return planSwitchover({
      ...input,
      heldBytes: transfer.sender.heldBytes,
      dirtyHeldShare: cameAgainPages === 0 ? 0 : cameHeldPages / cameAgainPages,
    });
  }

  async #applyPlan(plan: SwitchoverPlan): Promise<void> {
    this.#ports.transfer.sender.setHeldBytesMax(plan.heldBytesMax);
    if (this.#thresholdBytes === FORCED_DIRTY_BYTES) return;
    // A guest that is stunned while the link is away would stand still until it is back.
    const mustWait = this.#ports.transport.isAway || this.#isSettling;
    const dirtyBytesMax = mustWait ? 0 : plan.dirtyBytesMax;
    const change = Math.abs(dirtyBytesMax - this.#thresholdBytes);
    if (change <= this.#thresholdBytes * 0.05) return;
    this.#thresholdBytes = dirtyBytesMax;
    await this.#ports.qemu.setDirtyBytesMax(dirtyBytesMax);
  }

  async #beginDrain(start: DrainStart): Promise<void> {
    const { drainage, clock, qemu, onWarning } = this.#ports;
    if (this.#drain !== null || drainage === null) return;
    try {
      await drainage.begin(start);
    } catch (error) {
      if (codeOf(error) !== "post-copy-unavailable" || this.#plan.mode === "post-copy") throw error;
      this.#postcopyWanted = false;
      onWarning("post-copy-unavailable", `${messageOf(error)} Throttling the guest instead.`);
      await qemu.throttle();
      return;
    }
    const nowMs = clock.nowMs();
    this.#drain = {
      sinceMs: nowMs,
      seenMs: nowMs,
      readBytes: drainage.readBytes(),
      bytesPerSecond: DRAIN_BYTES_PER_SECOND_FIRST,
      isThrottled: false,
    };
    if (this.#goesNow) this.#ports.transfer.goNow();
    await this.#watchDrain(this.#drain);
  }

  /** It is drained, but the dest is sent pages still. */
  get #isSettling(): boolean {
    return this.#drain !== null && this.#ports.transfer.sender.drainStage !== "telling";
  }

  /** How fast QEMU can be read is what was seen at best: when little is dirty it sends little. */
  async #watchDrain(drain: Drain): Promise<void> {
    const { clock, drainage, qemu, onWarning } = this.#ports;
    const readBytes = drainage!.readBytes();
    const nowMs = clock.nowMs();
    if (this.#isSettling || this.#pass <= 1) drain.sinceMs = nowMs;
    else if (!drain.isThrottled) {
      drain.isThrottled = true;
      // QEMU does so only where the guest still changes faster than it is read, seconds later.
      await qemu.throttle(DRAIN_THROTTLE);
    }
    const elapsedMs = Math.max(DRAIN_LOOK_MS_MIN, nowMs - drain.seenMs);
    const bytesPerSecond = ((readBytes - drain.readBytes) * 1000) / elapsedMs;
    drain.readBytes = readBytes;
    drain.seenMs = nowMs;
    drain.bytesPerSecond = Math.max(drain.bytesPerSecond, bytesPerSecond);
    const isLate = clock.nowMs() - drain.sinceMs > DRAIN_MS_MAX;
    if (!isLate || this.#thresholdBytes === FORCED_DIRTY_BYTES) return;
    onWarning(
      "not-converging",
      "the guest changes faster than it is read on this host; stunning it all the same",
    );
    this.#thresholdBytes = FORCED_DIRTY_BYTES;
    await qemu.setDirtyBytesMax(FORCED_DIRTY_BYTES);
  }

  async #watchStall(migration: QueryMigrate, ram: NonNullable<QueryMigrate["ram"]>): Promise<void> {
    const { clock, transfer, transport, disks, drainage, onWarning } = this.#ports;
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
      case "post-copy":
        if (drainage !== null) {
          this.#postcopyWanted = true;
          return;
        }
        onWarning(
          "post-copy-unavailable",
          `${detail}; throttling it, for post-copy is not possible`,
        );
        await this.#throttle(migration);
        return;
      case "cancel":
        throw new SessionError(detail, { code: "not-converging" });
      case "stun":
        onWarning("not-converging", `${detail}; stunning it all the same`);
        this.#thresholdBytes = FORCED_DIRTY_BYTES;
        await this.#ports.qemu.setDirtyBytesMax(FORCED_DIRTY_BYTES);
        return;
      case "throttle":
        onWarning("not-converging", `${detail}; throttling its vCPUs`);
        await this.#throttle(migration);
    }
  }

  async #throttle({ cpuThrottlePercent }: QueryMigrate): Promise<void> {
    const { disks, qemu } = this.#ports;
    disks?.throttle();
    if (cpuThrottlePercent === null || cpuThrottlePercent === 0) await qemu.throttle();
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
      this.#wake = resolve;
      const isUrgent = this.#postcopyWanted && this.#goesNow && this.#drain === null;
      this.#ports.clock.after(isUrgent ? SOON_MS : TICK_MS, resolve);
    });
  }
}

function dirtyBytesPerSecond(ram: NonNullable<QueryMigrate["ram"]>): number | null {
  return ram.passes < 2 ? null : ram.dirtyPagesPerSecond * ram.pageSizeBytes;
}
