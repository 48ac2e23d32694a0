import type { Clock } from "@vmferry/core";
import { SessionError } from "./session-error.ts";

/** From the stun until everything is ready for the hand-over; a dest that takes longer is given up and the guest runs on. */
const STUN_MS_MAX = 60_000;

/** What `work` comes to; `fail` is called when it takes too long. */
export async function withinStun<T>(
  work: () => Promise<T>,
  { clock, fail }: { readonly clock: Clock; readonly fail: (error: SessionError) => void },
): Promise<T> {
  const cancelTimer = clock.after(STUN_MS_MAX, () => {
    const detail = `the dest was not prepared within ${STUN_MS_MAX} ms of the stun`;
    fail(new SessionError(detail, { code: "stun-time-limit" }));
  });
  try {
    return await work();
  } finally {
    cancelTimer();
  }
}
