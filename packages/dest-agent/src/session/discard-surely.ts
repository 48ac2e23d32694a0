/**
 * The end of a guest that is not to run here, for as long as its QEMU takes to be gone: SIGKILL ends no
 * process that waits in the kernel, say for storage. It is ended again and again, and what is made of
 * it (images, name, journal) is given up behind its end alone.
 */
import type { Logger } from "@vmferry/agent";
import { growingDelay, messageOf, sleep, type Clock } from "@vmferry/core";
import type { GuestHolding } from "./guest-holding.ts";

const AGAIN = { msMin: 1000, msMax: 30_000 };

export interface DiscardOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** The agent stops: what is under way is waited for, and nothing is tried any more. */
  readonly signal?: AbortSignal;
  /** QEMU is still there. */
  readonly onStuck?: (reason: string) => void;
}

/**
 * Nobody may hear of a refusal while its QEMU is there, for whoever does starts the guest elsewhere:
 * "left" says that it may be, and that the agent's next life has to go on. Rejects where QEMU is gone,
 * and the rest of it is not.
 */
export async function discardSurely(
  holding: Pick<GuestHolding, "isAlive" | "discard" | "exited"> | null,
  { clock, logger, signal, onStuck }: DiscardOptions,
): Promise<"discarded" | "left"> {
  if (holding === null) return "discarded";
  const ended = new AbortController();
  void holding.exited.then(() => {
    ended.abort();
  });
  let told: string | null = null;
  const nextDelayMs = growingDelay(AGAIN);
  for (;;) {
    const wasAlive = holding.isAlive();
    try {
      await holding.discard();
      return "discarded";
    } catch (error) {
      if (!wasAlive) throw error;
      const reason = messageOf(error);
      const text = "the QEMU of a refused guest is still there; ending it again";
      logger[reason === told ? "debug" : "error"]({ err: error }, text);
      told = reason;
      onStuck?.(reason);
    }
    // Its end wakes it, once.
    const wakers = [signal, ended.signal].filter((one) => one?.aborted === false);
    if (signal?.aborted !== true)
      await sleep(clock, nextDelayMs(), AbortSignal.any(wakers as AbortSignal[]));
    if (signal?.aborted === true) return "left";
  }
}
