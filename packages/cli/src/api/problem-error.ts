import { CliError } from "../cli-error.ts";
import { EXIT_CODE } from "../exit-code.ts";

/** RFC 9457, as the agents answer. */
export interface Problem {
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
  readonly errors?: readonly { readonly field: string; readonly detail: string }[];
}

/** The agent answered, with a refusal. */
export class ProblemError extends CliError {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(messageFor(problem), { code: problem.code, exitCode: EXIT_CODE.failed });
    this.problem = problem;
  }
}

/** Details say it all where the caller did something wrong; not always where the agent did. */
function messageFor({ title, status, detail, code }: Problem): string {
  const text = `${status < 500 ? "" : `${title}: `}${detail} (${code})`;
  if (code !== "unauthorized") return text;
  return `${text}\nSet VMFERRY_API_TOKEN or VMFERRY_API_TOKEN_FILE to the agent's API token.`;
}
