/** What an earlier life of the agent has stored of a guest's memory, for whoever goes on with it. */
import type { PageDialer } from "../adapters/peer-dialer.ts";
import { discardRest, MemoryRest, type MemoryRestOptions } from "./memory-rest.ts";

export interface StoredRest {
  /** Serves it from now on; null where the dest has all of the memory, or nobody could serve it. */
  serve(): Promise<MemoryRest | null>;
  /** Nobody can ask for it any more. */
  discard(): Promise<void>;
}

export interface StoredRestOptions extends Pick<
  MemoryRestOptions,
  "memoryDir" | "clock" | "random" | "logger" | "about"
> {
  /** Null where the peer is not configured any more. */
  readonly dialPages: PageDialer | null;
}

export function storedRest({ dialPages, ...options }: StoredRestOptions): StoredRest {
  const { memoryDir, about, logger } = options;
  return {
    serve: async () => {
      if (dialPages === null) return null;
      try {
        return await MemoryRest.find({
          ...{ ...options, dialPages },
          // Every agent that has page lanes has zstd.
          compression: true,
          bandwidthBytesPerSecond: null,
          onFailed: () => undefined,
        });
      } catch (error) {
        logger.error({ err: error }, "memory that the dest may lack cannot be read");
        return null;
      }
    },
    discard: () => discardRest(memoryDir, about.migrationId),
  };
}
