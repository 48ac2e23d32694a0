/** What receives a guest at the dest: the counterpart of `SimulatedCargo`. */
import { Deferred } from "@vmferry/core";
import type { Guest, GuestRegistry } from "../../packages/agent/src/index.ts";
import type { ArrivalCounters } from "../../packages/dest-agent/src/session/arrival-report.ts";
import type { StateDigests } from "../../packages/dest-agent/src/session/dest-hand-over-ports.ts";
import {
  holdGuest,
  type GuestHolding,
} from "../../packages/dest-agent/src/session/guest-holding.ts";
import type {
  Reception,
  ReceptionOptions,
} from "../../packages/dest-agent/src/session/reception.ts";
import { IncomingQemuError } from "../../packages/dest-agent/src/adapters/incoming-qemu.ts";
import { FRAME_BYTES, type Frame } from "./cargo.ts";
import type { DestMachine } from "./dest-machine.ts";
import type { Life } from "./life.ts";
import type { Setting } from "./setting.ts";
import { BLOCKS, digestOf, PAGES } from "./truth.ts";

export interface ReceptionPorts {
  readonly setting: Setting;
  readonly life: Life;
  readonly machine: DestMachine;
  readonly guest: Guest;
  readonly registry: GuestRegistry;
  /** Durable from then on; null when they are void. */
  readonly setDisk: (blocks: number[] | null) => void;
  /** Asked once: a page of this arrival is not what was sent. */
  readonly isDamaged: boolean;
}

export class SimulatedReception implements Reception {
  readonly qemuVersion: string;
  readonly holding: GuestHolding;
  readonly counters = {
    ram: { counters: { fedPages: 0, zeroPages: 0 }, totalBytes: 0 },
    bulk: { wireBytes: 0 },
    disks: null,
  } as unknown as ArrivalCounters;
  readonly postCopyRefusal = "";
  readonly lazy = null;
  readonly #ports: ReceptionPorts;
  readonly #onCredit: ReceptionOptions["onCredit"];
  readonly #pages = new Arriving(PAGES + 1);
  readonly #blocks = new Arriving(BLOCKS);
  #isClosed = false;

  constructor(ports: ReceptionPorts, { onCredit }: Pick<ReceptionOptions, "onCredit">) {
    const { guest, registry, setDisk, life, setting } = ports;
    this.#ports = ports;
    this.#onCredit = onCredit;
    this.qemuVersion = guest.qemuVersion;
    const holding = holdGuest({
      guest,
      registry,
      keepDisks: () => Promise.resolve(),
      discardDisks: async () => {
        await this.#pause();
        if (life.port("dest disks discard")) setDisk(null);
      },
    });
    const discard = (): Promise<void> => holding.discard().catch(() => undefined);
    this.holding = setting.bug.takesKilledForDead === true ? { ...holding, discard } : holding;
    life.onDeath(() => {
      this.#hangUp();
    });
  }

  arrived(_connection: number, frame: Buffer): void {
    if (this.#isClosed) return;
    const content = frame as unknown as Frame;
    switch (content.kind) {
      case "pages":
        this.#pages.take(content.order, content.pages);
        break;
      case "block":
        this.#blocks.take(content.order, [[content.block, content.value]]);
        break;
      case "pages-end":
        this.#pages.end(content.count);
        break;
      case "blocks-end":
        this.#blocks.end(content.count);
        break;
    }
    this.#onCredit(FRAME_BYTES);
  }

  async load(onRamEnded: () => void): Promise<StateDigests> {
    const { machine, life, setDisk, isDamaged } = this.#ports;
    const isLoaded = new Promise<boolean>((resolve) => {
      machine.onLoad(resolve);
      machine.onExit(() => {
        resolve(false);
      });
    });
    const memory = await Promise.race([this.#pages.whole.promise, isLoaded]);
    if (typeof memory === "boolean") throw this.#loadError();
    if (isDamaged) memory[0] = 1 - (memory[0] ?? 0);
    onRamEnded();
    if (!life.port("dest feeds QEMU")) return new Promise(() => undefined);
    machine.load(memory);
    const blocks = this.#blocks.whole.promise.then(async (whole) => {
      await this.#pause();
      if (life.port("dest disks sync")) setDisk([...whole]);
      return whole;
    });
    const [disk, loaded] = await Promise.all([blocks, isLoaded]);
    if (!loaded) throw this.#loadError();
    await this.#pause();
    return { ramDigest: digestOf(memory), diskDigests: [digestOf(disk)] };
  }

  memoryIsWhole(): void {
    throw new Error("no memory follows a guest in this world");
  }

  async close(): Promise<void> {
    this.#hangUp();
    await this.#pause();
    this.#ports.guest.busyWith = null;
  }

  #hangUp(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const { machine, setting } = this.#ports;
    setting.scheduler.after(setting.random.spread(0.01, 2), () => {
      machine.streamClosed();
    });
  }

  #loadError(): IncomingQemuError {
    return new IncomingQemuError("QEMU did not load the guest", { code: "dest-load-failed" });
  }

  #pause(): Promise<void> {
    return this.#ports.life.sleep(this.#ports.setting.random.spread(0.1, 10));
  }
}

/** Parts that may overtake each other: the newer one counts, and all of them have to come. */
class Arriving {
  readonly whole = new Deferred<number[]>();
  readonly #content: number[];
  readonly #orders: number[];
  #taken = 0;
  #due: number | null = null;

  constructor(parts: number) {
    this.#content = new Array<number>(parts).fill(0);
    this.#orders = new Array<number>(parts).fill(0);
  }

  take(order: number, parts: readonly (readonly [number, number])[]): void {
    for (const [part, value] of parts) {
      if ((this.#orders[part] ?? 0) > order) continue;
      this.#orders[part] = order;
      this.#content[part] = value;
    }
    this.#taken += 1;
    this.#look();
  }

  end(count: number): void {
    this.#due = count;
    this.#look();
  }

  #look(): void {
    if (this.#taken === this.#due) this.whole.resolve(this.#content);
  }
}
