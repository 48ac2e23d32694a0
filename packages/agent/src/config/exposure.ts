import type { AgentConfig, DestConfig, SourceConfig } from "./agent-config.ts";
import { formatListenAddress, isLoopback } from "./listen-address.ts";
import { isPlaintextPeer } from "./peer-list.ts";

const ENCRYPT =
  "set VMFERRY_TLS_DIR, see docs/tls.md, or set VMFERRY_INSECURE=1 to allow plaintext between hosts, on a network that you trust";

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

function destProblems({ peerListen, peerToken, tlsDir, insecure }: DestConfig): string[] {
  // With TLS nobody comes in without a certificate of the private authority.
  if (isLoopback(peerListen.host) || tlsDir !== null) return [];
  const problems: string[] = [];
  const address = formatListenAddress(peerListen);
  if (peerToken === null) {
    problems.push(
      `any host could send guests to ${address}: set VMFERRY_PEER_TOKEN or ` +
        "VMFERRY_PEER_TOKEN_FILE on both agents, or VMFERRY_TLS_DIR, or listen on 127.0.0.1",
    );
  }
  if (!insecure) problems.push(`guests would arrive unencrypted on ${address}: ${ENCRYPT}`);
  return problems;
}

function peerProblems({ peers, tlsDir, insecure }: SourceConfig): string[] {
  return peers.flatMap((peer) => {
    const { name, url } = peer;
    const isEncrypted = new URL(url).protocol === "wss:";
    // One peer in plaintext beside others would be a downgrade that a typing mistake brings about.
    if (tlsDir !== null && !isEncrypted) {
      return [
        `${name} is ${url}, and VMFERRY_TLS_DIR asks for TLS: name it wss:// in VMFERRY_PEERS`,
      ];
    }
    if (tlsDir === null && isEncrypted) {
      return [`${name} is ${url}, and there are no certificates for TLS: set VMFERRY_TLS_DIR`];
    }
    if (insecure || !isPlaintextPeer(peer)) return [];
    return [`guests would go to ${name} (${url}) unencrypted: ${ENCRYPT}`];
  });
}
