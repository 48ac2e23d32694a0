/** What is sent of the store although nobody waits for it. */

/**
 * How much of it: a guest that is about to run, or has just begun to, needs the processors and the
 * link for itself.
 */
export type PushPace = "none" | "hot" | "all";

export interface PagePlace {
  readonly block: number;
  readonly page: number;
}

export interface Push {
  readonly pace: PushPace;
  /** What the guest is likely to need as soon as it runs, the likeliest first; sent before all else. */
  readonly hot: readonly PagePlace[];
}
