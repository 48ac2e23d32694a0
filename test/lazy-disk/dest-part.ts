// The dest's part of a lazy disk: an image on its way between an export and a source that dials. As a
// program of its own it can be killed, and somebody else goes on:
//
//   dest-part.ts <image directory> <image> <size> <socket>    "begin" on stdin: the guest is here

import { createInterface } from "node:readline";
import { dirname, join } from "node:path";
import { createImage, HeldSockets, type CreatedImage } from "@vmferry/block";
import { assert, systemClock } from "@vmferry/core";
import { DiskHashes } from "../../packages/agent/src/hashes/disk-hashes.ts";
import { createLogger } from "../../packages/agent/src/log.ts";
import { LazyExport } from "../../packages/dest-agent/src/adapters/lazy-export.ts";
import { fetchBlocks } from "../../packages/dest-agent/src/adapters/block-link.ts";
import { PeerListener } from "../../packages/dest-agent/src/adapters/peer-listener.ts";
import { AwaitedDevice } from "../../packages/dest-agent/src/disk/awaited-device.ts";
import { BlockFetcher } from "../../packages/dest-agent/src/disk/block-fetcher.ts";
import { admitBlocks } from "../../packages/dest-agent/src/session/page-link.ts";
import { LazyImage } from "../../packages/dest-agent/src/disk/lazy-image.ts";

export const UNIT_BYTES = 65_536;
export const HASH_SEED = "0123456789abcdef";
export const DISK_ID = "disk0";

export interface DestPartOptions {
  readonly imageDirectory: string;
  readonly image: string;
  readonly sizeBytes: number;
  readonly socketPath: string;
}

const logger = createLogger({ role: "dest", level: "warn", stream: process.stderr });

export class DestPart {
  readonly fetcher = new BlockFetcher(systemClock);
  readonly listener: PeerListener;
  readonly awaited: AwaitedDevice;
  readonly export: LazyExport;
  #lazy: LazyImage | null = null;

  private constructor(listener: PeerListener, awaited: AwaitedDevice, exported: LazyExport) {
    this.listener = listener;
    this.awaited = awaited;
    this.export = exported;
  }

  get lazy(): LazyImage {
    assert(this.#lazy !== null, "the disk has begun");
    return this.#lazy;
  }

  static async open({ socketPath, sizeBytes }: DestPartOptions): Promise<DestPart> {
    const listener = await PeerListener.open({
      host: "127.0.0.1",
      port: 0,
      token: null,
      tls: null,
      clock: systemClock,
      onControl: () => undefined,
      onBulk: () => undefined,
      onPages: () => undefined,
      onStranger: () => undefined,
      onBlocks: (socket) => {
        admitBlocks(socket, systemClock, () => ({
          claimMatches: () => true,
          attachBlocks: (_attempt, link) => {
            void fetchBlocks(link, part.fetcher).ended.then((reason) => {
              logger.warn({ err: reason }, "the link is over");
            });
          },
        }));
      },
    });
    const awaited = new AwaitedDevice(sizeBytes);
    const sockets = await HeldSockets.open({
      directory: dirname(socketPath),
      onTrouble: (reason) => {
        logger.warn({ reason }, "the socket does not outlive this process");
      },
    });
    const exported = await LazyExport.open({
      diskId: DISK_ID,
      ...{ socketPath, sockets },
      device: awaited,
      logger,
    });
    const part = new DestPart(listener, awaited, exported);
    return part;
  }

  static createImage({ imageDirectory, image, sizeBytes }: DestPartOptions): Promise<CreatedImage> {
    return createImage({
      directory: imageDirectory,
      name: image,
      sizeBytes,
      needBytes: 0,
      mark: { blockBytes: UNIT_BYTES, migrationId: "lazy-test", epoch: 2 },
    });
  }

  /** Nothing came before the guest. */
  async begin(created: CreatedImage): Promise<void> {
    const { sizeBytes } = created.image;
    const hashes = new DiskHashes({ sizeBytes, unitBytes: UNIT_BYTES, seedHex: HASH_SEED });
    hashes.leaveOut(0, hashes.units);
    this.#serve(await LazyImage.begin(created, hashes, this.#options));
  }

  async takeUp({ imageDirectory, image }: DestPartOptions): Promise<void> {
    const known = { unitBytes: UNIT_BYTES, seedHex: HASH_SEED };
    this.#serve(await LazyImage.takeUp(join(imageDirectory, image), known, this.#options));
  }

  get #options(): Parameters<typeof LazyImage.takeUp>[2] {
    return {
      id: DISK_ID,
      index: 0,
      fetcher: this.fetcher,
      compression: true,
      clock: systemClock,
      onFailed: (error) => {
        logger.error({ err: error }, "the disk has failed");
      },
    };
  }

  #serve(lazy: LazyImage): void {
    this.#lazy = lazy;
    this.awaited.serve(lazy.disk);
    lazy.disk.pull();
  }
}

if (process.argv[1] === import.meta.filename) {
  const [imageDirectory, image, size, socketPath] = process.argv.slice(2) as [
    string,
    string,
    string,
    string,
  ];
  const options = { imageDirectory, image, sizeBytes: Number(size), socketPath };
  const created = await DestPart.createImage(options);
  const part = await DestPart.open(options);
  const say = (line: string): void => {
    process.stdout.write(`${line}\n`);
  };
  say(`port ${part.listener.port}`);
  for await (const line of createInterface(process.stdin)) {
    if (line !== "begin") continue;
    await part.begin(created);
    say(`began ${dirname(socketPath)}`);
  }
}
