import { fails, passes, skips, warns, type Finding } from "@vmferry/agent";
import { codeOf, messageOf } from "@vmferry/core";
import type { PeerAddress } from "../adapters/peer-dialer.ts";
import type { PeerAnswer } from "./peer-answer.ts";

const TLS_FAILURE =
  /^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_|EPROTO$)/;
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** Whether the two agents know each other, and nobody else can listen. */
export function checkAccess(answer: PeerAnswer, { url, token }: PeerAddress): Finding {
  if (answer.kind === "failed") {
    const { error } = answer;
    if (codeOf(error) === "peer-unauthorized") {
      return fails(messageOf(error), "Set VMFERRY_PEER_TOKEN to the same secret on both hosts.");
    }
    if (isTlsFailure(error)) {
      return fails(
        messageOf(error),
        "Let the certificate at the destination name its host, be valid and be signed by an authority " +
          "that this agent knows (NODE_EXTRA_CA_CERTS).",
      );
    }
    if (codeOf(error) === "peer-unreachable" || codeOf(error) === "peer-lost") {
      return skips("Nobody answers at the destination.");
    }
  }
  const { protocol, hostname } = new URL(url);
  if (LOOPBACK.test(hostname)) return passes("The destination's agent is on this host.");
  if (protocol !== "wss:") {
    return warns(
      "The link is not encrypted: the guest's memory and disks can be read on the way.",
      "Name the peer by a wss:// URL, with a TLS proxy before the dest agent.",
    );
  }
  if (token === null) {
    return warns(
      "The destination takes guests from whoever can reach it.",
      "Set VMFERRY_PEER_TOKEN to the same secret on both hosts.",
    );
  }
  return passes("The link is encrypted, and the destination knows this agent.");
}

/** The cause is what the socket said. */
function isTlsFailure(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : null;
  const { code } = (cause ?? {}) as { readonly code?: unknown };
  return typeof code === "string" && TLS_FAILURE.test(code);
}
