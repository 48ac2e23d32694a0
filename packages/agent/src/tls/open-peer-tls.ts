import { messageOf } from "@vmferry/core";
import type { AgentConfig } from "../config/agent-config.ts";
import type { Logger } from "../log.ts";
import { PeerTls } from "./peer-tls.ts";

type TlsConfig = Pick<AgentConfig, "role" | "tlsDir">;

/**
 * The TLS that the configuration asks for, or null; SIGHUP reads its files anew. Files that cannot be
 * used are an error like any other of the configuration. One that has merely expired is not: an agent
 * that does not start cannot give guests back their disks.
 */
export function openPeerTls({ role, tlsDir }: TlsConfig, logger: Logger): PeerTls | null {
  if (tlsDir === null) return null;
  const tls = new PeerTls(tlsDir, role === "dest" ? "server" : "client");
  logger.info({ tlsDir, expiries: expiriesOf(tls) }, "agents are spoken to by TLS");
  warnIfInvalid(tls, logger);
  process.on("SIGHUP", () => {
    try {
      tls.reload();
    } catch (error) {
      logger.error({ reason: messageOf(error) }, "the certificates of before stay in use");
      return;
    }
    logger.info(
      { expiries: expiriesOf(tls) },
      "certificates read again; connections that are open stay",
    );
    warnIfInvalid(tls, logger);
  });
  return tls;
}

function warnIfInvalid(tls: PeerTls, logger: Logger): void {
  const reason = tls.invalidity(new Date());
  if (reason !== null) logger.error({ reason }, "no other agent will accept this one");
}

function expiriesOf(tls: PeerTls): Readonly<Record<string, Date>> {
  return Object.fromEntries(tls.expiries.map(({ certificate, at }) => [certificate, at]));
}
