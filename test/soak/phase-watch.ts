/** The phases of a migration as its source tells them, to find an instant in it. */
import { isFinal } from "../failpoints/await-settled.ts";
import { pause, type MovingGuest } from "../moving-guest.ts";

const WATCH_MS = 4;
const REACH_MS_MAX = 60_000;

/** Follows the migration at the source, up to the death. */
export class PhaseWatch {
  readonly #guest: MovingGuest;
  readonly #id: string;
  #stopped = false;
  phase = "starting";
  stunnedMs: number | null = null;
  /** Since the guest runs at the dest, and its memory follows. */
  followsMs: number | null = null;
  endedMs: number | null = null;

  constructor(guest: MovingGuest, id: string) {
    this.#guest = guest;
    this.#id = id;
    void this.#poll();
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Resolves at the instant, with it; one that is counted from a phase waits for that first. */
  async waitUntil(at: {
    readonly from: "begin" | "stun" | "post-copy";
    readonly beganMs: number;
    readonly instantMs: number;
  }): Promise<number> {
    const deadlineMs = at.beganMs + REACH_MS_MAX;
    for (;;) {
      const nowMs = performance.now();
      const fromMs = { begin: at.beganMs, stun: this.stunnedMs, "post-copy": this.followsMs }[
        at.from
      ];
      const since = fromMs ?? this.endedMs;
      const isDue = since !== null && nowMs >= since + at.instantMs;
      if (isDue || nowMs > deadlineMs) return nowMs;
      await pause(WATCH_MS);
    }
  }

  async #poll(): Promise<void> {
    while (this.endedMs === null) {
      const migration = await this.#guest.lab.source.api.migration(this.#id).catch(() => null);
      if (migration === null || this.#isStopped()) return;
      this.phase = migration.phase;
      const stunned = migration.phases.some(({ phase }) => phase === "stunned");
      if (stunned) this.stunnedMs ??= performance.now();
      if (migration.phase === "post-copy") this.followsMs ??= performance.now();
      if (isFinal(migration)) this.endedMs = performance.now();
      await pause(WATCH_MS);
    }
  }

  /** By somebody else, while an answer was waited for. */
  #isStopped(): boolean {
    return this.#stopped;
  }
}
