import { stringify } from "yaml";
import type { AgentConfig } from "./agent-config.ts";
import { formatListenAddress } from "./listen-address.ts";

/** The effective configuration as a configuration file, except that it does not tell secrets. */
export function printConfig(config: AgentConfig): string {
  const { role, apiListen, apiToken, peerToken, ...rest } = config;
  const redacted = (secret: string | null): string | null =>
    secret === null ? null : "[redacted]";
  const shown = {
    apiListen: formatListenAddress(apiListen),
    ...rest,
    apiToken: redacted(apiToken),
    peerToken: redacted(peerToken),
  };
  const special =
    config.role === "dest"
      ? { peerListen: formatListenAddress(config.peerListen) }
      : { peers: Object.fromEntries(config.peers.map(({ name, url }) => [name, url])) };
  return `# vmferry ${role} agent\n${stringify({ ...shown, ...special })}`;
}
