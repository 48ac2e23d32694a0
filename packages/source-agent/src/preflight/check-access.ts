import { fails, passes, skips, warns, type Finding } from "@vmferry/agent";
import { codeOf, messageOf } from "@vmferry/core";
import type { PeerAddress } from "../adapters/peer-dialer.ts";
import type { PeerAnswer } from "./peer-answer.ts";

const TLS_FAILURE =
  /^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_|INVALID_PURPOSE$|EPROTO$)/;
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** Whether the two agents know each other, and nobody else can listen. */
export function checkAccess(answer: PeerAnswer, { url, token, tls }: PeerAddress): Finding {
  if (answer.kind === "failed") {
    const { error } = answer;
    if (codeOf(error) === "peer-unauthorized") {
      return fails(messageOf(error), "Set VMFERRY_PEER_TOKEN to the same secret on both hosts.");
    }
    if (isTlsFailure(error)) {
      return fails(
        messageOf(error),
        "Give both agents certificates of one authority in VMFERRY_TLS_DIR; " +
          "`vmferry certs init` makes them.",
      );
    }
    if (codeOf(error) === "peer-unreachable" || codeOf(error) === "peer-lost") {
      return skips("Nobody answers at the destination.");
    }
  }
  if (tls !== null) return passes("The link is encrypted, and both ends show certificates.");
  if (LOOPBACK.test(new URL(url).hostname)) {
    return passes("The destination's agent is on this host.");
  }
  const whoever = token === null ? ", and the destination takes guests from whoever comes" : "";
  return warns(
    `The link is not encrypted: the guest's memory and disks can be read on the way${whoever}.`,
    "Set VMFERRY_TLS_DIR on both hosts (`vmferry certs init`), and name the peer wss://.",
  );
}

/** The cause is what the socket said. */
function isTlsFailure(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : null;
  const { code } = (cause ?? {}) as { readonly code?: unknown };
  return typeof code === "string" && TLS_FAILURE.test(code);
}
