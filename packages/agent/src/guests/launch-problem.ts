import { codeOf, messageOf } from "@vmferry/core";
import { GuestError } from "@vmferry/qemu";
import { asProblemCode } from "../as-problem-code.ts";
import { ProblemError } from "../problem-error.ts";

/** QEMU's reasons, with the code that the API has for them. */
export function launchProblem(error: unknown): unknown {
  const code = codeOf(error);
  if (error instanceof ProblemError || code === null) return error;
  const known = isUnknownMachine(error) ? "machine-type-unsupported" : code;
  const problem = { code: asProblemCode(known, "guest-start-failed") };
  return new ProblemError(messageOf(error), problem, { cause: error });
}

function isUnknownMachine(error: unknown): boolean {
  if (!(error instanceof GuestError) || error.detail.code !== "qemu-exited") return false;
  return error.detail.lastLines.some((line) => line.includes("unsupported machine type"));
}
