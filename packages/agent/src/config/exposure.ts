import type { AgentConfig } from "./agent-config.ts";
import { formatListenAddress, isLoopback } from "./listen-address.ts";
import { isPlaintextPeer } from "./peer-list.ts";

const ALLOW_PLAINTEXT =
  "set VMFERRY_INSECURE=1 to allow plaintext between hosts, on a network that you trust";

/** Why this configuration would open more to other hosts than was asked for, and what to set. */
export function exposureProblems(config: AgentConfig): string[] {
  const problems: string[] = [];
  const { apiListen, apiToken } = config;
  if (!isLoopback(apiListen.host) && apiToken === null) {
    problems.push(
      `the API on ${formatListenAddress(apiListen)} could be used by any host: set ` +
        "VMFERRY_API_TOKEN or VMFERRY_API_TOKEN_FILE, or listen on 127.0.0.1",
    );
  }
  return [...problems, ...(config.role === "dest" ? destProblems(config) : peerProblems(config))];
}

function destProblems({
  peerListen,
  peerToken,
  insecure,
}: Extract<AgentConfig, { role: "dest" }>): string[] {
  if (isLoopback(peerListen.host)) return [];
  const problems: string[] = [];
  const address = formatListenAddress(peerListen);
  if (peerToken === null) {
    problems.push(
      `any host could send guests to ${address}: set VMFERRY_PEER_TOKEN or ` +
        "VMFERRY_PEER_TOKEN_FILE on both agents, or listen on 127.0.0.1",
    );
  }
  if (!insecure) problems.push(`guests would arrive unencrypted on ${address}: ${ALLOW_PLAINTEXT}`);
  return problems;
}

function peerProblems({ peers, insecure }: Extract<AgentConfig, { role: "source" }>): string[] {
  if (insecure) return [];
  return peers
    .filter(isPlaintextPeer)
    .map(({ name, url }) => `guests would go to ${name} (${url}) unencrypted: ${ALLOW_PLAINTEXT}`);
}
