/** The disks of one session: hands each its frames, and tells when all of them are there. */
import { Deferred } from "@vmferry/core";
import { FrameKind, violation } from "@vmferry/protocol";
import type { ArrivedFrame, FrameTarget } from "../bulk/bulk-receiver.ts";
import type { ArrivingDisk } from "./arriving-disk.ts";

export class DiskReceiver implements FrameTarget {
  /** By index in the offer; null where nothing is copied. */
  readonly #disks: readonly (ArrivingDisk | null)[];
  readonly #connections: number;
  readonly #endedConnections = new Set<number>();
  readonly #digests = new Deferred<string[]>();

  constructor(disks: readonly (ArrivingDisk | null)[], connections: number) {
    this.#disks = disks;
    this.#connections = connections;
  }

  /** Those that are copied, in the order of the offer. */
  get arriving(): readonly ArrivingDisk[] {
    return this.#disks.filter((disk) => disk !== null);
  }

  /** Resolves with the digests, in the order of `arriving`, when all images are whole and durable. */
  get ended(): Promise<string[]> {
    return this.#digests.promise;
  }

  arrived(arrived: ArrivedFrame): void {
    const { connection, header } = arrived;
    if (this.#endedConnections.has(connection)) {
      throw violation("frame of a disk after the end of the disks");
    }
    if (header.kind === FrameKind.DISK_END) {
      this.#endedConnections.add(connection);
      if (this.#endedConnections.size === this.#connections) this.#end();
      return;
    }
    if (header.block % this.#connections !== connection) {
      throw violation("frame of a disk on another connection than its own");
    }
    const disk = this.#disks[header.block] ?? null;
    if (disk === null) throw violation("frame of a disk that is not copied");
    disk.arrived(arrived);
  }

  async stop(): Promise<void> {
    this.#digests.reject(new Error("the disks do not arrive any more"));
    await Promise.all(this.arriving.map((disk) => disk.stop()));
  }

  #end(): void {
    Promise.all(this.arriving.map((disk) => disk.end())).then(
      (digests) => {
        this.#digests.resolve(digests);
      },
      (error: unknown) => {
        this.#digests.reject(error);
      },
    );
  }
}
