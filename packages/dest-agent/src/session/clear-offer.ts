import type { Journal, Logger } from "@vmferry/agent";
import type { DestHandOver } from "./dest-hand-over.ts";
import type { Reception } from "./reception.ts";

export interface OfferToClear {
  /** Null where it was not made. */
  readonly reception: Pick<Reception, "close"> | null;
  readonly handOver: Pick<DestHandOver, "clear" | "isLeft">;
  readonly journal: Pick<Journal<"dest">, "last" | "close" | "remove">;
  readonly logger: Logger;
}

/**
 * An offer of which nothing was promised: resolves when what was made for it is gone, or is left to
 * the agent's next life, which has to know of it then. A journal that says nothing goes as well.
 */
export async function clearOffer(offer: OfferToClear): Promise<void> {
  const { reception, handOver, journal, logger } = offer;
  const forget = (): Promise<void> =>
    journal.last === null && !handOver.isLeft ? journal.remove() : journal.close();
  for (const step of [() => reception?.close(), () => handOver.clear(), forget]) {
    try {
      await step();
    } catch (error) {
      if (handOver.isLeft) break;
      logger.error({ err: error }, "what was made for a guest that does not come stays");
    }
  }
  await journal.close();
}
