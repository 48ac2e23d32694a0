import { fails, passes, skips, warns, type Finding } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import type { PeerAddress } from "../adapters/peer-dialer.ts";
import { isNobodyThere, type PeerAnswer } from "./peer-answer.ts";

/** Of Node, and OpenSSL's verdicts on a certificate. */
const TLS_FAILURE =
  /^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_|INVALID_(CA|PURPOSE)$|EPROTO$)/;
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** Whether the destination is who it should be, and nobody else can listen. */
export function checkTls(answer: PeerAnswer, { url }: Pick<PeerAddress, "url">): Finding {
  if (answer.kind === "failed" && isTlsFailure(answer.error)) {
    return fails(
      messageOf(answer.error),
      "Let the certificate at the destination name its host, be valid and be signed by an authority " +
        "that this agent knows (NODE_EXTRA_CA_CERTS).",
    );
  }
  const { protocol } = new URL(url);
  if (isLoopback(url)) return passes("The destination's agent is on this host.");
  if (protocol !== "wss:") {
    return warns(
      "The link is not encrypted: the guest's memory and disks can be read on the way.",
      "Name the peer by a wss:// URL, with a TLS proxy before the dest agent.",
    );
  }
  if (isNobodyThere(answer)) return skips("Nobody answers at the destination.");
  return passes("The link is encrypted, and the destination's certificate is to be trusted.");
}

/** Somebody answered, and TLS with it was not agreed on: the cause is what the socket said. */
export function isTlsFailure(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : null;
  const { code } = (cause ?? {}) as { readonly code?: unknown };
  return typeof code === "string" && TLS_FAILURE.test(code);
}

export function isLoopback(url: string): boolean {
  return LOOPBACK.test(new URL(url).hostname);
}
