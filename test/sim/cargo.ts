/**
 * What travels of a guest at the source, in place of pages and blocks: which beat wrote each of them
 * last. Between the guest and its disk stands a gate, as the agent's own export does.
 */
import { Deferred } from "@vmferry/core";
import { BLOCKS, digestOf, PAGES } from "./truth.ts";
import type { Cargo, CargoOptions } from "../../packages/source-agent/src/session/cargo.ts";
import type { StateDigests } from "../../packages/source-agent/src/session/data-path.ts";
import type { PeerLink } from "../../packages/source-agent/src/session/peer-link.ts";
import type { SourceQemu } from "../../packages/source-agent/src/adapters/source-qemu.ts";
import type { Guest } from "../../packages/agent/src/index.ts";
import { UNKNOWN_MAP, type MigrationMap } from "@vmferry/protocol";
import type { Life } from "./life.ts";
import type { DiskAnswer, DiskWrite } from "./machine.ts";
import type { Setting } from "./setting.ts";
import type { Gate, MigrationSocket, SourceMachine } from "./source-machine.ts";

/** What a bulk connection carries. */
export type Frame =
  | { readonly kind: "pages"; readonly order: number; readonly pages: readonly Page[] }
  | {
      readonly kind: "block";
      readonly order: number;
      readonly block: number;
      readonly value: number;
    }
  /** How many of its kind there were. */
  | { readonly kind: "pages-end" | "blocks-end"; readonly count: number };

type Page = readonly [page: number, value: number];

export const FRAME_BYTES = 4096;
const POLL_MS = 5;
/** What comes later is heard later. */
const ORDER_MS = 0.0001;
const RETRY_AGAIN_MS = 2000;

export interface CargoPorts {
  readonly setting: Setting;
  readonly life: Life;
  readonly machine: SourceMachine;
  readonly disk: number[];
  readonly guest: Guest;
  readonly qemu: SourceQemu;
  /** Where QEMU finds the socket that it shall migrate to. */
  readonly listen: (uri: string, socket: MigrationSocket | null) => void;
}

export class SimulatedCargo implements Cargo {
  readonly postcopyRefusal = "not simulated";
  readonly rest = null;
  readonly diskRest = null;
  readonly offered: Cargo["offered"] = [];
  readonly anyToCopy = true;
  readonly #ports: CargoPorts;
  readonly #options: Pick<CargoOptions, "plan" | "onFailed">;
  readonly #sentPages = new Array<number>(PAGES + 1).fill(0);
  readonly #sentBlocks = new Array<number>(BLOCKS).fill(0);
  readonly #dirty = new Set<number>();
  readonly #ended = new Deferred();
  readonly #gate: Gate;
  readonly #socket: MigrationSocket;
  #peer: PeerLink | null = null;
  #frames = { pages: 0, blocks: 0 };
  #unacknowledged = 0;
  /** When the last of what QEMU wrote to its socket is read. */
  #heardMs = 0;
  #isHeld = false;
  #isInterposed = false;
  /** What was begun is undone as a whole. */
  #beginning: Promise<void> = Promise.resolve();
  #isClosed = false;

  constructor(ports: CargoPorts, options: Pick<CargoOptions, "plan" | "onFailed">) {
    this.#ports = ports;
    this.#options = options;
    this.#gate = { write: (write) => this.#write(write) };
    this.#socket = {
      pages: (pages) => {
        this.#fromQemu(() => {
          this.#sendPages(pages);
        });
      },
      end: () => {
        this.#fromQemu(() => {
          this.#send({ kind: "pages-end", count: this.#frames.pages });
          this.#ended.resolve();
        });
      },
    };
    ports.life.onDeath(() => {
      this.#hangUp();
    });
  }

  fenceDisks(): Promise<void> {
    return Promise.resolve();
  }

  restKept(): Promise<void> {
    return Promise.resolve();
  }

  serveDisks(): void {
    // No disk follows.
  }

  map(): MigrationMap {
    return UNKNOWN_MAP;
  }

  async load(_offer: unknown, peer: PeerLink): Promise<void> {
    await this.#pause();
    this.#peer = peer;
  }

  /** All blocks once; from then on what the guest writes goes to both. */
  async copyDisks(): Promise<void> {
    this.#beginning = this.#interpose();
    await this.#beginning;
    for (let block = 0; block < BLOCKS; block++) this.#dirty.add(block);
    while (this.#dirty.size > 0 && !this.#isClosed) await this.#sendBlock();
    void this.#mirror();
  }

  async precopy(signal: AbortSignal): Promise<number> {
    const { qemu, listen, life, machine } = this.#ports;
    const uri = `unix:${this.#options.plan.id}`;
    listen(uri, this.#socket);
    await qemu.migrate(uri);
    while (machine.migration !== "pre-switchover") {
      signal.throwIfAborted();
      const { status } = await qemu.query();
      if (status === "failed" || status === "cancelled") throw new Error(`QEMU says ${status}`);
      await life.sleep(POLL_MS);
    }
    return life.clock.nowMs();
  }

  async hold(): Promise<void> {
    await this.#pause();
    this.#isHeld = true;
  }

  async finish(): Promise<StateDigests> {
    while (this.#dirty.size > 0) {
      if (this.#ports.setting.bug.forgetsLastBlocks === true) break;
      await this.#sendBlock();
    }
    this.#send({ kind: "blocks-end", count: this.#frames.blocks });
    await this.#ended.promise;
    return {
      ramDigest: digestOf(this.#sentPages),
      diskDigests: [digestOf(this.#sentBlocks)],
    };
  }

  forwardShut(): void {
    const { life, machine, setting } = this.#ports;
    if (!life.port("source forwards SHUT") || this.#isClosed) return;
    setting.scheduler.after(this.#random.spread(0.01, 0.5), () => {
      machine.shut(this.#socket);
    });
  }

  returnPath(): void {
    // Nothing but SHUT matters, and that is forwarded.
  }

  acknowledged(bytes: number): void {
    this.#unacknowledged -= bytes;
    if (this.#unacknowledged < 0) throw new Error("more was acknowledged than was sent");
  }

  postcopy(): void {
    throw new Error("not simulated");
  }

  setBandwidthLimit(): void {
    // Nothing is measured here.
  }

  handOver(): void {
    const { setting, machine } = this.#ports;
    if (setting.bug.quitsAtHandOver === true) machine.kill("a planted bug");
  }

  release(): void {
    this.#isHeld = false;
  }

  async close(): Promise<void> {
    this.#hangUp();
    await this.#ports.life.sleep(this.#random.spread(0.01, 1));
  }

  async part({ phase }: { readonly phase: string }): Promise<void> {
    const { machine, qemu, life } = this.#ports;
    await this.#beginning;
    if (phase !== "owner" || !this.#isInterposed) return;
    await this.#pause();
    if (!life.port("source disks leave")) return;
    if (machine.gate === this.#gate) machine.gate = null;
    machine.retryWrite();
    // Again where a QEMU that hangs does not answer, as DiskParting does; one that has died needs nothing.
    while (machine.isAlive) {
      const isAnswered = await qemu.retryFailedIo().then(
        () => true,
        () => false,
      );
      if (isAnswered) return;
      await life.sleep(RETRY_AGAIN_MS);
    }
  }

  async #interpose(): Promise<void> {
    const { machine, life } = this.#ports;
    await this.#pause();
    if (!life.port("source disks interpose")) return;
    machine.gate = this.#gate;
    this.#isInterposed = true;
  }

  async #mirror(): Promise<void> {
    while (!this.#isClosed && !this.#isHeld) await this.#sendBlock();
  }

  async #sendBlock(): Promise<void> {
    await this.#ports.life.sleep(this.#random.spread(1, 50));
    const [block] = this.#dirty;
    if (block === undefined || this.#isClosed) return;
    this.#dirty.delete(block);
    const value = this.#ports.disk[block] ?? 0;
    this.#sentBlocks[block] = value;
    this.#frames.blocks += 1;
    this.#send({ kind: "block", order: this.#frames.blocks, block, value });
  }

  #sendPages(pages: readonly Page[]): void {
    for (const [page, value] of pages) this.#sentPages[page] = value;
    this.#frames.pages += 1;
    this.#send({ kind: "pages", order: this.#frames.pages, pages });
  }

  #send(frame: Frame): void {
    const { life } = this.#ports;
    const bulk = this.#peer?.bulk ?? [];
    if (this.#isClosed || bulk.length === 0 || !life.port(`source sends ${frame.kind}`)) return;
    this.#unacknowledged += FRAME_BYTES;
    this.#random.pick(bulk).send(frame as unknown as Buffer, () => undefined);
  }

  /** What the guest writes while an agent stands between it and its disk. */
  #write({ block, value }: DiskWrite): DiskAnswer {
    const { life, disk } = this.#ports;
    if (life.isDead) return "stalled";
    if (this.#isHeld) return "failed";
    this.#dirty.add(block);
    disk[block] = value;
    return "written";
  }

  #fromQemu(take: () => void): void {
    const { life } = this.#ports;
    const nowMs = life.clock.nowMs();
    this.#heardMs = Math.max(this.#heardMs + ORDER_MS, nowMs + this.#random.spread(0.01, 0.5));
    life.later(this.#heardMs - nowMs, () => {
      if (!this.#isClosed) take();
    });
  }

  /** QEMU sees its socket closed a moment later. */
  #hangUp(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const { setting, machine, listen } = this.#ports;
    listen(`unix:${this.#options.plan.id}`, null);
    setting.scheduler.after(this.#random.spread(0.01, 2), () => {
      machine.socketClosed(this.#socket);
    });
  }

  #pause(): Promise<void> {
    return this.#ports.life.sleep(this.#random.spread(0.1, 20));
  }

  get #random(): Setting["random"] {
    return this.#ports.setting.random;
  }
}
