import { join } from "node:path";
import { HeldSockets } from "@vmferry/block";
import type { Logger } from "./log.ts";

/** For the exports that stand between a guest and its disk. */
export function openHeldSockets(
  { stateDir }: { readonly stateDir: string },
  logger: Logger,
): Promise<HeldSockets> {
  return HeldSockets.open({
    // As long as the name of `run`, which is emptied by every agent that starts.
    directory: join(stateDir, "nbd"),
    onTrouble: (reason) => {
      logger.warn({ reason }, "sockets of exports do not outlive this agent");
    },
  });
}
