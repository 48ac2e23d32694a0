/** The life of an agent process around its own work: listen, say so, stop on a signal. */
import type { Logger } from "pino";
import { messageOf } from "@vmferry/core";
import { formatListenAddress, type ListenAddress } from "./config/listen-address.ts";
import type { ReadinessReason } from "./http/readiness.ts";
import type { HttpServer } from "./http/server.ts";

/** systemd and compose have to wait for longer. */
export const STOP_MS_MAX = 15_000;

export interface RunAgentOptions {
  readonly app: HttpServer;
  readonly apiListen: ListenAddress;
  readonly logger: Logger;
  /** Asked once: what is to be found out about QEMU takes longer than much of a migration. */
  readonly readiness: () => Promise<readonly ReadinessReason[]>;
  /** Everything but the HTTP server, in the right order. Guests stay. */
  readonly stop: () => Promise<void>;
}

/** Resolves when the API is listening; the process ends by SIGINT or SIGTERM. */
export async function runAgent({
  app,
  apiListen,
  logger,
  readiness,
  stop,
}: RunAgentOptions): Promise<void> {
  const url = await app.listen({ host: apiListen.host, port: apiListen.port });
  // Signals are for this process: `npx` is another one, and passes none on.
  const { pid } = process;
  logger.info({ api: url, configured: formatListenAddress(apiListen), pid }, "listening");
  let stopping = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (stopping) {
      logger.warn({ signal }, "stopping at once");
      process.exit(130);
    }
    stopping = true;
    logger.info({ signal }, "stopping; guests stay");
    setTimeout(() => {
      logger.error("stopping took too long");
      process.exit(1);
    }, STOP_MS_MAX).unref();
    void (async () => {
      try {
        await stop();
        await app.close();
      } catch (error) {
        logger.error({ reason: messageOf(error) }, "stopping failed");
        process.exitCode = 1;
      }
      process.exit();
    })();
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  for (const reason of await readiness()) logger.warn({ ...reason }, "not ready");
}
