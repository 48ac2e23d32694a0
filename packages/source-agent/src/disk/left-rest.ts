/** The disks that an earlier life of the agent has left, for whoever goes on with the hand-over. */
import { mayHaveLeftDisks, readLeftDisks, removeLeftDisks } from "../adapters/left-disks.ts";
import type { BlockDialer } from "../adapters/peer-dialer.ts";
import { DiskRest, type DiskRestOptions } from "./disk-rest.ts";

export interface LeftDiskRest {
  /** Some disk follows, whether or not it can be served; also where that cannot be told. */
  exists(): Promise<boolean>;
  /**
   * Serves them from now on; null where none follows the guest, or nobody could be served. Rejects
   * where an image is not what the guest has left, or cannot be kept so.
   */
  serve(): Promise<DiskRest | null>;
  /** Nobody can ask for them any more. */
  discard(): Promise<void>;
}

export interface LeftDiskRestOptions extends Pick<
  DiskRestOptions,
  "about" | "clock" | "random" | "logger"
> {
  readonly memoryDir: string;
  /** Null where the peer is not configured any more. */
  readonly dialer: BlockDialer | null;
}

export function leftDiskRest({ dialer, memoryDir, ...options }: LeftDiskRestOptions): LeftDiskRest {
  const { about } = options;
  return {
    exists: () => mayHaveLeftDisks(memoryDir, about.migrationId),
    serve: async () => {
      if (dialer === null) return null;
      const left = await readLeftDisks(memoryDir, about.migrationId);
      if (left?.epoch !== about.epoch) return null;
      // Every agent that has lazy disks has zstd.
      const compression = true;
      const bandwidthBytesPerSecond = null;
      return DiskRest.open(left, { ...options, dialer, compression, bandwidthBytesPerSecond });
    },
    discard: () => removeLeftDisks(memoryDir, about.migrationId),
  };
}
