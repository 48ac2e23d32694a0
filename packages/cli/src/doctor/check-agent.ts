import { AgentApi } from "../api/agent-api.ts";
import { parseApiUrl } from "../api/api-url.ts";
import { UnreachableError } from "../api/unreachable-error.ts";
import { CliError } from "../cli-error.ts";
import { formatDuration } from "../units/format-amount.ts";
import { fails, passes, warns, type Finding } from "./finding.ts";

/** An HTTP date has whole seconds, and the answer its own time. */
const CLOCK_MS_MAX = 3000;

const NOT_STARTED =
  "As it should be before an agent has been started. If one is elsewhere, give its URL: vmferry doctor URL, --api URL or VMFERRY_API.";
const UNREACHABLE =
  "See that the agent runs there (systemctl status vmferry@source or vmferry@dest, or its terminal), that its VMFERRY_API_LISTEN is this address, and that no firewall is between.";

export interface AgentQuestion {
  readonly url: string;
  readonly token: string | null;
  /** It may as well not have been started yet. */
  readonly mayBeAbsent?: boolean;
}

/** Whether it answers, is ready, takes the token, and agrees about the time. */
export async function checkAgent(question: AgentQuestion): Promise<Finding> {
  const { url, token, mayBeAbsent = false } = question;
  try {
    const api = new AgentApi({ url: parseApiUrl(url), token });
    const { reasons, clockAheadMs } = await api.readiness();
    if (reasons.length > 0) {
      const text = reasons.map(({ code, detail }) => `${detail} (${code})`).join("; ");
      return fails(`answers, but is not ready: ${text}`, "Put that right on the agent's host.");
    }
    const guests = await api.guests();
    const aheadMs = clockAheadMs ?? 0;
    if (Math.abs(aheadMs) > CLOCK_MS_MAX) {
      const distance = `${formatDuration(Math.abs(aheadMs))} ${aheadMs > 0 ? "ahead" : "behind"}`;
      const hint = "Run an NTP client on both hosts.";
      return warns(`ready, but its clock is some ${distance} of this host's`, hint);
    }
    return passes(`ready; ${guests.length === 1 ? "1 guest" : `${guests.length} guests`}`);
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    const [detail = "", ...hint] = error.message.split("\n");
    if (!(error instanceof UnreachableError)) return fails(detail, hint.join("\n"));
    return mayBeAbsent ? warns(detail, NOT_STARTED) : fails(detail, UNREACHABLE);
  }
}
