import { fails, passes, skips, warns, type Finding } from "@vmferry/agent";
import { codeOf, messageOf } from "@vmferry/core";
import type { PeerAddress } from "../adapters/peer-dialer.ts";
import { isLoopback } from "./check-tls.ts";
import { isNobodyThere, type PeerAnswer } from "./peer-answer.ts";

const HINT = "Set VMFERRY_PEER_TOKEN to the same secret on both hosts.";

/** Whether the destination takes guests from this agent, and not from everybody. */
export function checkAccess(answer: PeerAnswer, { url, token, tls }: PeerAddress): Finding {
  if (answer.kind === "failed" && codeOf(answer.error) === "peer-unauthorized") {
    return fails(messageOf(answer.error), HINT);
  }
  if (isNobodyThere(answer)) return skips("Nobody answers at the destination.");
  if (tls !== null) return passes("The destination knows this agent by its certificate.");
  if (token !== null) return passes("The destination knows this agent by its token.");
  if (isLoopback(url)) return passes("The destination's agent is on this host.");
  return warns("The destination takes guests from whoever can reach it.", HINT);
}
