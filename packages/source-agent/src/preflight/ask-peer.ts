/** One exchange with the dest before an offer: nothing of the guest is touched on either side. */
import { inTime, type Logger } from "@vmferry/agent";
import { messageOf, type Clock } from "@vmferry/core";
import { CloseCode, type ControlMessageOf } from "@vmferry/protocol";
import type { Dialer } from "../adapters/peer-dialer.ts";
import { ControlLink, expectAnswer, type Identity } from "../session/control-link.ts";
import { SessionError } from "../session/session-error.ts";
import type { PeerAnswer } from "./peer-answer.ts";

const STEP_MS_MAX = 5000;

export interface AskPeerOptions {
  readonly dialer: Pick<Dialer, "control">;
  readonly identity: Identity;
  readonly logger: Logger;
  readonly clock: Clock;
}

/** Never rejects; resolves within twice 5 s. */
export async function askPeer(
  options: AskPeerOptions,
  probe: Promise<ControlMessageOf<"probe">>,
): Promise<PeerAnswer> {
  const { clock } = options;
  const link = new ControlLink(options);
  const limit = { clock, msMax: STEP_MS_MAX };
  try {
    const { version, features } = await connected(link, clock);
    if (!features.has("probe")) {
      return { kind: "silent", version, reason: "it is of a release that cannot be asked" };
    }
    try {
      const { launchRefusal, ...rest } = await inTime(probe, limit);
      const isRead = launchRefusal !== undefined && features.has("probe-attached");
      link.send(isRead ? { ...rest, launchRefusal } : rest);
      const answer = link.next("probe-result", "reject");
      const result = await inTime(expectAnswer<ControlMessageOf<"probe-result">>(answer), limit);
      const { roundTripMs } = link;
      const clockAheadMs = result.dateMs + roundTripMs / 2 - clock.date().getTime();
      return { kind: "answered", version, roundTripMs, clockAheadMs, result };
    } catch (error) {
      // The dest has turned us away, and says why.
      if (error instanceof SessionError) return { kind: "failed", error };
      return { kind: "silent", version, reason: messageOf(error) };
    }
  } catch (error) {
    return { kind: "failed", error };
  } finally {
    link.close(CloseCode.DONE);
  }
}

async function connected(link: ControlLink, clock: Clock): ReturnType<ControlLink["connect"]> {
  const timer = new AbortController();
  const late = new SessionError("the dest does not answer", { code: "peer-unreachable" });
  const cancelTimer = clock.after(STEP_MS_MAX, () => {
    timer.abort(late);
  });
  const aborted = new Promise<never>((_, reject) => {
    timer.signal.addEventListener("abort", () => {
      reject(late);
    });
  });
  try {
    return await Promise.race([link.connect(timer.signal), aborted]);
  } finally {
    cancelTimer();
  }
}
