/**
 * A lazy disk from end to end without QEMU and without sockets: a guest that works on it, the dest's
 * agent on a host that can be killed or crash before any operation, a link that breaks, a source that
 * forgets everything and cannot read at times. The guest knows what every sector may hold.
 */
import { assert, messageOf } from "@vmferry/core";
import { DiskHashes } from "../../packages/agent/src/hashes/disk-hashes.ts";
import { ManualClock } from "../../packages/agent/src/events/manual-clock.ts";
import { BlockError } from "../../packages/block/src/block-error.ts";
import { PresentMap } from "../../packages/block/src/image/present-map.ts";
import { MemoryDevice } from "../../packages/block/src/memory-device.ts";
import { seededRandom, SimulatedHost } from "../../packages/block/src/simulated-host.ts";
import { BlockFetcher, type BlockLink } from "../../packages/dest-agent/src/disk/block-fetcher.ts";
import { LazyDisk } from "../../packages/dest-agent/src/disk/lazy-disk.ts";
import { BlockServer } from "../../packages/source-agent/src/disk/block-server.ts";
import { GuestOfLazyDisk } from "./guest-of-lazy-disk.ts";

const SEED_HEX = "0123456789abcdef";
const SECTOR_BYTES = 512;
const GUEST_OPS_MAX = 6;
const TURN_MS = 20;
const STUCK_TURNS = 20_000;
const DISK = 3;

export interface LazyDiskPlan {
  /** Of all that is left to chance. */
  readonly salt: number;
  readonly unitBytes: number;
  readonly sectors: number;
  /** Requests of the guest while the disk is filled. */
  readonly requests: number;
  /** In which shares of the operations the agent is killed, the host crashes, the disk is full. */
  readonly kills: number;
  readonly crashes: number;
  readonly full: number;
  /** In which shares of the turns the link breaks, the source's agent forgets, its image fails. */
  readonly cuts: number;
  readonly unreadable: number;
  readonly hurryPull: boolean;
}

interface Outcome {
  readonly lives: number;
  readonly crashes: number;
  readonly equal: boolean;
}

export async function runLazyDisk(plan: LazyDiskPlan): Promise<Outcome> {
  return await new LazyDiskRun(plan).run();
}

class LazyDiskRun {
  readonly #plan: LazyDiskPlan;
  readonly #random: () => number;
  readonly #clock = new ManualClock();
  readonly #source: MemoryDevice;
  readonly #host: SimulatedHost;
  readonly #guest: GuestOfLazyDisk;
  readonly #subject: Parameters<typeof PresentMap.open>[0]["subject"];
  #sourceHashes: DiskHashes;
  #disk: LazyDisk | null = null;
  #fetcher: BlockFetcher | null = null;
  #server: BlockServer | null = null;
  #link: (BlockLink & { broken: boolean }) | null = null;
  #lives = 0;
  #crashes = 0;
  #failure: unknown = null;
  #calm = false;
  #rebooted = false;

  constructor(plan: LazyDiskPlan) {
    const { salt, unitBytes, sectors } = plan;
    const sizeBytes = sectors * SECTOR_BYTES;
    this.#plan = plan;
    this.#random = seededRandom(salt);
    this.#source = new MemoryDevice(sizeBytes);
    this.#host = new SimulatedHost(sizeBytes, this.#random);
    this.#guest = new GuestOfLazyDisk(sectors, this.#random);
    this.#subject = { imageBytes: sizeBytes, unitBytes, migrationId: "m", epoch: 2 };
    this.#sourceHashes = this.#newHashes();
  }

  async run(): Promise<Outcome> {
    const isPresent = this.#fillBoth();
    this.#host.onOperation = () => undefined;
    const created = await PresentMap.create(this.#mapOptions(), isPresent);
    await created.close();
    await this.#workOn(this.#plan.requests);
    // Everything goes well from now on.
    this.#calm = true;
    this.#source.failure = null;
    if (this.#disk === null) await this.#begin();
    const [disk, fetcher] = [this.#disk, this.#fetcher];
    assert(disk !== null && fetcher !== null, "an agent that nothing happens to has begun");
    disk.pull();
    await this.#turnUntil(() => this.#guest.idle && disk.remainingBytes === 0);
    await disk.whole;
    fetcher.end(DISK, disk.end());
    const verdicts: boolean[] = [];
    void disk.equal.then((verdict) => verdicts.push(verdict));
    await this.#turnUntil(() => verdicts.length > 0);
    await disk.flush();
    this.#host.crash();
    this.#guest.expectCurrent(this.#host.image.durable);
    return { lives: this.#lives, crashes: this.#crashes, equal: verdicts[0] === true };
  }

  /** The source has everything, the dest what was copied before; which units that are. */
  #fillBoth(): (unit: number) => boolean {
    const { unitBytes, sectors } = this.#plan;
    const units = Math.ceil((sectors * SECTOR_BYTES) / unitBytes);
    const present = new Set<number>();
    for (let unit = 0; unit < units; unit++) {
      const start = unit * unitBytes;
      const content = this.#source.content.subarray(start, start + unitBytes);
      if (this.#random() < 0.7) {
        for (let at = 0; at < content.length; at += SECTOR_BYTES) {
          this.#guest.begin((start + at) / SECTOR_BYTES, content.subarray(at, at + SECTOR_BYTES));
        }
        void this.#source.write(start, Buffer.from(content));
      }
      // What the dest's image holds elsewhere is of no meaning.
      const copied = this.#random() < 0.2;
      this.#host.image.write(start, copied ? content : Buffer.alloc(content.length, 0xee));
      if (copied) present.add(unit);
      if (copied) this.#sourceHashes.set(unit, this.#sourceHashes.hash(content));
    }
    this.#host.image.beginSync()();
    return (unit) => present.has(unit);
  }

  async #workOn(requests: number): Promise<void> {
    let left = requests;
    let turns = 0;
    while (left > 0 || !this.#guest.idle) {
      if (this.#disk === null) await this.#begin();
      if (left > 0 && this.#guest.busy < GUEST_OPS_MAX && this.#disk !== null) {
        left -= this.#guest.request(this.#disk) ? 1 : 0;
      }
      if (this.#plan.hurryPull || this.#random() < 0.02) this.#disk?.pull();
      await this.#turn();
      if (turns++ > STUCK_TURNS) throw new Error("the guest's requests come to no end");
    }
  }

  async #turnUntil(isOver: () => boolean): Promise<void> {
    for (let turns = 0; !isOver(); turns++) {
      if (turns > STUCK_TURNS) throw new Error("the disk does not become whole");
      await this.#turn();
    }
  }

  async #turn(): Promise<void> {
    const failure = this.#failure ?? this.#guest.failure;
    if (failure !== null) throw new Error(messageOf(failure), { cause: failure });
    const { cuts, unreadable } = this.#plan;
    if (!this.#calm && this.#random() < cuts) this.#cut();
    if (this.#link === null && this.#random() < 0.2) this.#connect();
    this.#source.failure =
      !this.#calm && this.#random() < unreadable ? new Error("EIO at the source") : null;
    this.#clock.advance(TURN_MS);
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** A new life of the dest's agent, which may end before it has begun. */
  async #begin(): Promise<void> {
    this.#lives++;
    this.#host.onOperation = (operation) => {
      this.#mayDie();
      const isFull = !this.#calm && operation === "image.write" && this.#random() < this.#plan.full;
      if (isFull) throw noSpace();
    };
    const life = this.#host.life;
    try {
      const map = await PresentMap.open(this.#mapOptions());
      const image = this.#host.openImage();
      this.#fetcher = new BlockFetcher(this.#clock);
      const fetcher = this.#fetcher;
      const hashes = this.#newHashes();
      const disk = new LazyDisk({
        id: "disk0",
        image,
        map,
        hashes,
        compression: true,
        ask: (run, urgency) => {
          fetcher.ask(DISK, run, urgency);
        },
        clock: this.#clock,
        onFailed: (error) => {
          if (life === this.#host.life) this.#failure = error;
        },
      });
      fetcher.join(DISK, disk);
      if (life !== this.#host.life) return;
      if (this.#rebooted) this.#guest.boot(this.#seen(map));
      this.#rebooted = false;
      this.#disk = disk;
      this.#guest.attach(disk);
    } catch (error) {
      if (life === this.#host.life) throw error;
    }
  }

  #mayDie(): void {
    if (this.#calm) return;
    const { kills, crashes } = this.#plan;
    const chance = this.#random();
    if (chance >= kills + crashes) return;
    this.#cut();
    this.#disk = null;
    if (chance < kills) {
      this.#host.killAgent();
      this.#guest.lostAgent();
    } else {
      this.#crashes++;
      this.#host.crash();
      this.#guest.lostHost();
      this.#rebooted = true;
    }
  }

  /** What the guest sees of its disk: the source's content wherever the map says nothing else. */
  #seen(map: PresentMap): Buffer {
    const { unitBytes } = this.#plan;
    const seen = Buffer.from(this.#source.content);
    for (let unit = 0; unit < map.units; unit++) {
      const start = unit * unitBytes;
      if (map.has(unit)) this.#host.image.cached.copy(seen, start, start, start + unitBytes);
    }
    return seen;
  }

  #cut(): void {
    this.#server?.stop();
    if (this.#link !== null) {
      this.#link.broken = true;
      this.#fetcher?.detach(this.#link);
    }
    this.#link = null;
    // Now and then it is another agent at the source, which knows nothing.
    if (this.#random() < 0.3) this.#sourceHashes = this.#newHashes();
  }

  #connect(): void {
    const fetcher = this.#fetcher;
    if (fetcher === null || this.#disk === null) return;
    const there: Buffer[] = [];
    const back: Buffer[] = [];
    const link = {
      broken: false,
      send: (message: Buffer) => {
        later(there, Buffer.from(message), (bytes) => {
          server.received(bytes);
        });
      },
    };
    /** In order, each after a while. */
    const later = (queue: Buffer[], message: Buffer, give: (bytes: Buffer) => void): void => {
      queue.push(message);
      if (queue.length > 1) return;
      const step = (): void => {
        if (link.broken) return;
        try {
          const next = this.#random() < 0.5 ? queue.shift() : undefined;
          if (next !== undefined) give(next);
        } catch (error) {
          this.#failure = error;
          return;
        }
        if (queue.length > 0) setImmediate(step);
      };
      setImmediate(step);
    };
    const disks = Array.from({ length: DISK + 1 }, () => null);
    const server = new BlockServer({
      disks: [
        ...disks.slice(0, DISK),
        { image: this.#source, hashes: this.#sourceHashes, remaining: { units: 0 } },
      ],
      compression: true,
      bandwidthBytesPerSecond: null,
      clock: this.#clock,
      link: {
        send: (message) => {
          later(back, message, (bytes) => {
            fetcher.received(link, bytes);
          });
          return new Promise((resolve) => setImmediate(resolve));
        },
      },
      onFailed: (error) => {
        this.#failure = error;
      },
    });
    this.#server = server;
    this.#link = link;
    fetcher.attach(link);
  }

  #mapOptions(): Parameters<typeof PresentMap.open>[0] {
    return { storage: this.#host.openMap(), subject: this.#subject, bootId: this.#host.bootId };
  }

  #newHashes(): DiskHashes {
    const { unitBytes, sectors } = this.#plan;
    const hashes = new DiskHashes({
      sizeBytes: sectors * SECTOR_BYTES,
      unitBytes,
      seedHex: SEED_HEX,
    });
    hashes.leaveOut(0, hashes.units);
    return hashes;
  }
}

function noSpace(): BlockError {
  const detail = { code: "block-io", errno: "ENOSPC", operation: "write", offset: 0 } as const;
  return new BlockError("no space", detail);
}
