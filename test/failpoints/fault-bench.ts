/**
 * Two agents with a faulty link between them and one guest that is used from round to round: as long
 * as it runs at the source it is the same, afterwards the next one is booted.
 */
import { rm } from "node:fs/promises";
import {
  FaultProxy,
  Lab,
  type AgentProcess,
  type GuestConsole,
  type SpawnedAgent,
} from "@vmferry/testkit";
import { MovingGuest } from "../moving-guest.ts";
import type { Side } from "./scenarios.ts";

const MIB = 1024 * 1024;
const DISK_BYTES = 64 * MIB;
/** Both sweeps take a second or two, and the disk is written to all the time. */
const WORKLOAD = {
  mem: "24M",
  rate: "1000",
  diskrate: "100",
  diskbytes: "32K",
  diskthreads: "2",
  disksweep: "8",
};

let images = 0;

export class FaultBench {
  readonly lab: Lab;
  readonly proxy: FaultProxy;
  readonly #lives: Record<Side, SpawnedAgent>;
  /** Of this round's lives that are over. */
  #formerLogs: string[] = [];
  #guest: MovingGuest | null = null;
  #image = "";

  readonly #workload: Readonly<Record<string, string>>;

  private constructor(lab: Lab, proxy: FaultProxy, workload: Readonly<Record<string, string>>) {
    this.#workload = workload;
    this.lab = lab;
    this.proxy = proxy;
    this.#lives = { source: lifeOf(lab.source), dest: lifeOf(lab.dest) };
  }

  /** What the guest does differs from the default in `workload`. */
  static async open(workload: Readonly<Record<string, string>> = {}): Promise<FaultBench> {
    const proxy = await FaultProxy.open();
    try {
      const lab = await Lab.open({ peerUrl: (port) => proxy.towards(port) });
      return new FaultBench(lab, proxy, { ...WORKLOAD, ...workload });
    } catch (error) {
      await proxy.close();
      throw error;
    }
  }

  /** The image of the guest's disk. */
  imagePath(side: Side): string {
    return this.lab.imagePath(side, this.#image);
  }

  life(side: Side): SpawnedAgent {
    return this.#lives[side];
  }

  agent(side: Side): AgentProcess {
    return side === "source" ? this.lab.source : this.lab.dest;
  }

  /** A guest that works at the source; both agents are as they come. */
  async guestAtSource(): Promise<MovingGuest> {
    this.#formerLogs = [];
    if (this.#guest !== null) return this.#guest;
    this.#image = `failpoint${++images}.raw`;
    await this.lab.makeDisk(this.#image, DISK_BYTES, { fill: 0.5, seed: images });
    this.#guest = await MovingGuest.boot(this.lab, {
      workload: this.#workload,
      disks: [{ id: "disk0", image: this.#image }],
    });
    return this.#guest;
  }

  /** The guest has gone to the dest, or nobody knows what it is: the next round boots another. */
  async endGuest(): Promise<void> {
    await this.#guest?.end();
    this.#guest = null;
    for (const side of ["source", "dest"] as const) {
      for (const beside of ["", ".vmferry", ".vmferry-present"]) {
        await rm(`${this.imagePath(side)}${beside}`, { force: true });
      }
    }
  }

  /** What the dest's QEMU is going to write; nothing of an earlier attempt is in it. */
  async followDest(guest: MovingGuest): Promise<GuestConsole> {
    const path = this.lab.destSerialLog(guest.name);
    await rm(path, { force: true });
    return this.lab.follow(path);
  }

  /** A new life of this agent after its last one has ended; rejects when it dies before it listens. */
  async start(side: Side, failpoints = ""): Promise<void> {
    this.#formerLogs.push(`--- ${side}, an earlier life\n${this.life(side).logText()}`);
    const life = {
      environment: failpoints === "" ? {} : { VMFERRY_FAILPOINTS: failpoints },
      onSpawn: (spawned: SpawnedAgent) => {
        this.#lives[side] = spawned;
      },
    };
    if (side === "source") await this.lab.startSource(life);
    else await this.lab.startDest(life);
  }

  /** Ends its present life in good order first. */
  async restart(side: Side, failpoints = ""): Promise<void> {
    await this.agent(side).stop();
    await this.start(side, failpoints);
  }

  /** Of everything since `guestAtSource`. */
  get logs(): string {
    const present = (["source", "dest"] as const).map(
      (side) => `--- ${side}, its present life\n${this.life(side).logText()}`,
    );
    return [...this.#formerLogs, ...present].join("\n");
  }

  async close(): Promise<void> {
    await this.lab.close();
    await this.proxy.close();
  }
}

function lifeOf(agent: AgentProcess): SpawnedAgent {
  return { pid: agent.pid, logText: () => agent.logText };
}
