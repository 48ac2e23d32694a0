import { ProblemError } from "../api/problem-error.ts";
import { CliError } from "../cli-error.ts";
import { EXIT_CODE } from "../exit-code.ts";

/** What the request's fields are called on the command line. */
const FLAG_OF_FIELD = new Map([
  ["guest", "GUEST"],
  ["destination", "DEST"],
  ["mode", "--post-copy"],
  ["onStall", "--on-stall"],
  ["disk.handover", "--disk-handover"],
  ["fallback", "--fallback"],
  ["allowUnsafe", "--allow-unsafe"],
  ["limits.downtimeMsMax", "--downtime"],
  ["limits.bandwidthBytesPerSecond", "--bandwidth"],
]);

/** Those of them that are about this guest or this destination, and not about the agent's caller. */
const REFUSING_STATUSES: ReadonlySet<number> = new Set([404, 409, 422, 502, 507]);

/** An agent that refuses the request for a migration has done nothing yet. */
export function refusalOf(error: unknown): unknown {
  if (!(error instanceof ProblemError)) return error;
  const { status, code, errors = [] } = error.problem;
  if (status === 400) {
    const fields = errors.map(
      ({ field, detail }) => `${FLAG_OF_FIELD.get(field) ?? field} ${detail}`,
    );
    const text = fields.length === 0 ? error.message : fields.join("\n");
    return new CliError(text, { code, exitCode: EXIT_CODE.usage }, { cause: error });
  }
  if (!REFUSING_STATUSES.has(status)) return error;
  return new CliError(error.message, { code, exitCode: EXIT_CODE.refused }, { cause: error });
}
