import { CliError, messageOf } from "../cli-error.ts";
import { EXIT_CODE } from "../exit-code.ts";

const WORDS = new Map([
  ["ECONNREFUSED", "connection refused"],
  ["ECONNRESET", "connection reset"],
  ["EHOSTUNREACH", "no route to the host"],
  ["ENETUNREACH", "no route to the network"],
  ["ENOTFOUND", "there is no such host"],
  ["EAI_AGAIN", "the host's name cannot be looked up"],
  ["ETIMEDOUT", "no answer"],
  ["UND_ERR_CONNECT_TIMEOUT", "no answer"],
  ["UND_ERR_SOCKET", "the connection was cut"],
]);

/** Nothing that is an agent of ours answers there. Trying again may help. */
export class UnreachableError extends CliError {
  constructor(api: URL, why: string, options?: { cause?: unknown }) {
    super(
      `no agent answers at ${api.origin}: ${why}.\n` +
        "Start one with `npx vmferry-source-agent`, or say where it is with --api URL or VMFERRY_API.",
      { code: "unreachable", exitCode: EXIT_CODE.unreachable },
      options,
    );
  }
}

/** Why `fetch` failed, in a few words; its own are always "fetch failed". */
export function causeOfFetchFailure(thrown: unknown): string {
  if (thrown instanceof DOMException && thrown.name === "TimeoutError") return "no answer in time";
  const cause = thrown instanceof Error ? (thrown.cause ?? thrown) : thrown;
  const code = (cause as { code?: unknown } | null)?.code;
  const words = typeof code === "string" ? WORDS.get(code) : undefined;
  return words ?? messageOf(cause);
}
