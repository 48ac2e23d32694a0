import { fails, passes, skips, warns, type Finding } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import type { PeerAddress } from "../adapters/peer-dialer.ts";
import { isNobodyThere, type PeerAnswer } from "./peer-answer.ts";

/** Of Node, and OpenSSL's verdicts on a certificate; the last is our own. */
const TLS_FAILURE =
  /^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_|INVALID_(CA|PURPOSE)$|EPROTO$|tls-)/;
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;
const DAY_MS = 86_400_000;
const EXPIRES_SOON_DAYS = 30;
const HINT =
  "`vmferry doctor` looks at the certificates of a host; docs/tls.md says what belongs there.";

/** Whether the destination is who it should be, and nobody else can listen. */
export function checkTls(
  answer: PeerAnswer,
  { url, tls }: Pick<PeerAddress, "url" | "tls">,
  now: Date,
): Finding {
  if (answer.kind === "failed" && isTlsFailure(answer.error)) {
    return fails(messageOf(answer.error), HINT);
  }
  const soon = tls?.expiries.find(
    ({ at }) => at.getTime() - now.getTime() < EXPIRES_SOON_DAYS * DAY_MS,
  );
  if (soon !== undefined) {
    const text = `${soon.certificate}-cert.pem of this host expires at ${soon.at.toISOString()}.`;
    return warns(text, "Replace it and send SIGHUP to this agent.");
  }
  if (new URL(url).protocol !== "wss:") {
    if (isLoopback(url)) return passes("The destination's agent is on this host.");
    return warns(
      "The link is not encrypted: the guest's memory and disks can be read on the way.",
      "Set VMFERRY_TLS_DIR on both hosts (`vmferry certs init`), and name the peer wss://.",
    );
  }
  if (isNobodyThere(answer)) return skips("Nobody answers at the destination.");
  return passes("The link is encrypted, and the destination's certificate is to be trusted.");
}

/** TLS was not agreed on: the cause is what the socket said. */
export function isTlsFailure(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : null;
  const { code } = (cause ?? {}) as { readonly code?: unknown };
  return typeof code === "string" && TLS_FAILURE.test(code);
}

export function isLoopback(url: string): boolean {
  return LOOPBACK.test(new URL(url).hostname);
}
