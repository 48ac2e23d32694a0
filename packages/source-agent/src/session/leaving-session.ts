import type { MapSource } from "@vmferry/agent";
import type { MigrationLimitsPatch } from "@vmferry/protocol";

/** A migration that has not ended, as the API steers it. */
export interface LeavingSession extends MapSource {
  /** Throws `past-hand-over` when the guest is no longer ours to keep. */
  cancel(): void;
  /** Throws `past-hand-over`. */
  setLimits(patch: MigrationLimitsPatch): void;
  /** Throws `past-hand-over` or `post-copy-unavailable`. */
  postcopy(): void;
  /** A person says whose the guest is. Rejects with `not-in-doubt`. */
  settle(owner: "source" | "dest"): Promise<void>;
  /** The agent stops: before the hand-over the guest stays, after it the wait for an answer ends. */
  stop(): void;
}
