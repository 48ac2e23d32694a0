import { growingDelay, sleep, type Clock } from "@vmferry/core";
import { limits, type ControlMessageOf } from "@vmferry/protocol";
import type { ControlLink } from "./control-link.ts";

/** Then it has found out by itself. */
const TELL_MS_MAX = limits.LINK_LOST_MS_MAX;
const AGAIN = { msMin: 100, msMax: 2000 };

export interface RolledBack {
  readonly link: ControlLink;
  readonly abort: ControlMessageOf<"abort">;
  readonly clock: Clock;
  readonly stopped: () => boolean;
}

/** Over a link that is made anew: the dest of an attempt that was rolled back need not wait. */
export async function tellRolledBack({ link, abort, clock, stopped }: RolledBack): Promise<void> {
  const { migrationId, epoch, generation, incarnation } = abort;
  const about = { migrationId, epoch, generation, incarnation };
  const untilMs = clock.nowMs() + TELL_MS_MAX;
  const nextDelayMs = growingDelay(AGAIN);
  while (clock.nowMs() < untilMs && !stopped()) {
    if (await link.resume(about)) {
      link.send(abort);
      return;
    }
    await sleep(clock, nextDelayMs());
  }
}
