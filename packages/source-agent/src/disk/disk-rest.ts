/**
 * The disks that follow a guest: served to the dest from images that nothing can write to, over one connection after another, for as long as the dest may lack something of them. Nothing is kept
 * from one connection to the next but hashes and figures.
 */
import { DiskHashes, type Logger } from "@vmferry/agent";
import { messageOf, sleep, type Clock } from "@vmferry/core";
import { limits, type ControlMessageOf } from "@vmferry/protocol";
import type { LeftDisks } from "../adapters/left-disks.ts";
import type { OpenPageLane } from "../adapters/page-socket.ts";
import type { BlockDialer } from "../adapters/peer-dialer.ts";
import { lacksNothing } from "../policy/lacks-nothing.ts";
import { redialDelayMs } from "../policy/redial-delay.ts";
import type { ServedDisk } from "./block-server.ts";
import { serveBlocks, type BlockServing } from "./serve-blocks.ts";
import { StillImages, type StillImage } from "./still-images.ts";

/** A lost packet of the handshake is sent again after one second. */
const DIAL_MS_MAX = 3000;

export interface DiskRestOptions {
  readonly dialer: BlockDialer;
  /** The hand-over that it serves; the incarnation is that of the source's journal. */
  readonly about: Pick<
    ControlMessageOf<"blocks-hello">,
    "migrationId" | "epoch" | "generation" | "incarnation"
  >;
  /** Feature `zstd` was agreed. */
  readonly compression: boolean;
  readonly bandwidthBytesPerSecond: number | null;
  readonly clock: Clock;
  /** 0 to 1, without it. */
  readonly random: () => number;
  readonly logger: Logger;
}

export interface DiskRestProgress {
  /**
   * What was not served yet of each disk, and 0 when the dest has all of it: what the guest has
   * replaced is never asked for.
   */
  readonly disks: readonly {
    readonly id: string;
    readonly totalBytes: number;
    readonly remainingBytes: number;
  }[];
  /** Over the wire, since the hand-over. */
  readonly wireBytes: number;
  readonly reconnects: number;
}

type Served = ServedDisk & StillImage;

export class DiskRest {
  readonly #options: DiskRestOptions;
  readonly #images: StillImages;
  readonly #disks: readonly Served[];
  readonly #stop = new AbortController();
  readonly #served: Promise<void>;
  #bandwidthBytesPerSecond: number | null;
  #serving: BlockServing | null = null;
  #attempt: number;
  #sentBytes = 0;
  #connections = 0;

  /** The guest is handed over: serves until `close`, which closes the images, too. */
  constructor(images: StillImages, hashSeed: string, options: DiskRestOptions) {
    this.#images = images;
    this.#disks = images.all.map((each) => served(each, hashSeed));
    this.#options = options;
    this.#bandwidthBytesPerSecond = options.bandwidthBytesPerSecond;
    // Connections of an earlier life of this agent were dialled at an earlier time.
    this.#attempt = options.clock.date().getTime();
    this.#served = this.#run();
  }

  /** Rejects where an image is not, or may not be, what the guest has left. */
  static async open(left: LeftDisks, options: DiskRestOptions): Promise<DiskRest> {
    return new DiskRest(await StillImages.open(left.disks), left.hashSeed, options);
  }

  get progress(): DiskRestProgress {
    return {
      disks: this.#disks.map(({ left: { id, sizeBytes, unitBytes }, remaining }) => ({
        id,
        totalBytes: sizeBytes,
        remainingBytes: Math.min(sizeBytes, remaining.units * unitBytes),
      })),
      wireBytes: this.#sentBytes + (this.#serving?.server.sentBytes ?? 0),
      reconnects: Math.max(0, this.#connections - 1),
    };
  }

  /** Holds for what nobody waits for. */
  setBandwidthLimit(bytesPerSecond: number | null): void {
    this.#bandwidthBytesPerSecond = bytesPerSecond;
    this.#serving?.server.setBandwidth(bytesPerSecond);
  }

  /** Serves no more; the images stay. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#serving?.close();
    await this.#served;
    await this.#images.close();
  }

  async #run(): Promise<void> {
    const { random, logger, clock } = this.#options;
    // Attempts in a row that brought nothing.
    let fruitless = 0;
    while (!this.#isStopped()) {
      const lane = await this.#dial();
      if (lane !== null && (await this.#serve(lane))) fruitless = 0;
      if (this.#isStopped()) break;
      await sleep(clock, redialDelayMs(fruitless++, random), this.#stop.signal);
    }
    logger.debug(this.progress, "disks are not served any more");
  }

  /** Until the connection is lost. Resolves with whether it was of use. */
  async #serve(lane: OpenPageLane): Promise<boolean> {
    const { compression, clock, logger } = this.#options;
    const bandwidthBytesPerSecond = this.#bandwidthBytesPerSecond;
    const disks: (ServedDisk | null)[] = [];
    for (const disk of this.#disks) disks[disk.left.index] = disk;
    const byIndex = Array.from(disks, (disk) => disk ?? null);
    const serving = serveBlocks(lane, {
      ...{ disks: byIndex, compression, bandwidthBytesPerSecond, clock },
    });
    this.#serving = serving;
    this.#connections += 1;
    logger.info({ attempt: this.#attempt }, "a connection of blocks stands");
    const reason = await serving.ended;
    const { sentBytes } = serving.server;
    this.#serving = null;
    this.#sentBytes += sentBytes;
    if (this.#isStopped()) return true;
    if (lacksNothing(reason)) logger.info("the dest says that it has all blocks");
    else {
      const why = { reason: messageOf(reason) };
      logger.warn(why, "the connection of blocks is lost; dialling again");
    }
    return sentBytes > 0;
  }

  async #dial(): Promise<OpenPageLane | null> {
    const { clock, logger, dialer, about } = this.#options;
    const { migrationId, epoch, generation, incarnation } = about;
    const failed = new AbortController();
    const cancelTimer = clock.after(DIAL_MS_MAX, () => {
      failed.abort(new Error("the dest does not answer"));
    });
    const hello = {
      ...({ kind: "blocks-hello", version: limits.PROTOCOL_VERSION } as const),
      ...{ migrationId, epoch, generation, incarnation, attempt: ++this.#attempt },
    };
    try {
      return await dialer.blocks(hello, AbortSignal.any([failed.signal, this.#stop.signal]));
    } catch (error) {
      if (!this.#isStopped()) logger.debug({ reason: messageOf(error) }, "no connection of blocks");
      return null;
    } finally {
      cancelTimer();
    }
  }

  #isStopped(): boolean {
    return this.#stop.signal.aborted;
  }
}

function served({ left, image }: StillImage, seedHex: string): Served {
  const { sizeBytes, unitBytes } = left;
  const hashes = new DiskHashes({ sizeBytes, unitBytes, seedHex });
  // Nothing of it came before the guest.
  hashes.leaveOut(0, hashes.units);
  return { left, image, hashes, remaining: { units: hashes.units } };
}
