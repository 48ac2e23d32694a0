/** What an earlier life of the agent has stored of a guest's memory, for whoever goes on with it. */
import type { PageDialer } from "../adapters/peer-dialer.ts";
import {
  discardRest,
  mayHaveRest,
  MemoryRest,
  restFilePath,
  type MemoryRestOptions,
} from "./memory-rest.ts";
import { discardRestFile } from "./rest-file.ts";

export interface StoredRest {
  /** Something is there, whether or not it can be served; also where that cannot be told. */
  exists(): Promise<boolean>;
  /**
   * Serves it from now on; null where the dest has all of the memory, or nobody could be served.
   * Rejects where it is there and cannot be read.
   */
  serve(): Promise<MemoryRest | null>;
  /** Nobody can ask for it any more. */
  discard(): Promise<void>;
}

export interface StoredRestOptions extends Pick<
  MemoryRestOptions,
  "memoryDir" | "sharedDir" | "clock" | "random" | "logger" | "about"
> {
  /** Null where the peer is not configured any more. */
  readonly dialPages: PageDialer | null;
}

export function storedRest({ dialPages, ...options }: StoredRestOptions): StoredRest {
  const { memoryDir, about, logger } = options;
  return {
    exists: () => mayHaveRest(memoryDir, about.migrationId),
    serve: async () => {
      if (dialPages === null) return null;
      return MemoryRest.find({
        ...{ ...options, dialPages },
        // Every agent that has page lanes has zstd.
        compression: true,
        bandwidthBytesPerSecond: null,
        linkBytesPerSecond: null,
        onFailed: () => undefined,
        onFileTrouble: (error) => {
          logger.warn({ err: error }, "the share is no help: memory goes by the network alone");
        },
      });
    },
    discard: async () => {
      const path = await restFilePath(options);
      await discardRest(memoryDir, about.migrationId);
      if (path !== null) discardRestFile(path, logger);
    },
  };
}
