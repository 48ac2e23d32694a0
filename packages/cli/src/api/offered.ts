import { CliError } from "../cli-error.ts";
import { EXIT_CODE } from "../exit-code.ts";
import { ProblemError } from "./problem-error.ts";

const CODES: ReadonlySet<string> = new Set(["not-found", "method-not-allowed", "not-available"]);

/** The agent's answer. Where the agent does not have what was asked for, the error says just that. */
export async function offered<T>(what: string, answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
    const { status, code } = error.problem;
    if (status !== 501 && !CODES.has(code)) throw error;
    const text = `the agent does not offer ${what}: ${error.message}`;
    throw new CliError(text, { code, exitCode: EXIT_CODE.failed }, { cause: error });
  }
}
