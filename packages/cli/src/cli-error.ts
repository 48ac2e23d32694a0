import { EXIT_CODE, type ExitCode } from "./exit-code.ts";

export interface CliErrorDetail {
  /** Stable and in kebab case; that of the agent's problem where there is one. */
  readonly code: string;
  readonly exitCode: ExitCode;
}

/** An expected failure: its message is all that the operator gets to see, so it says what to do. */
export class CliError extends Error {
  readonly detail: CliErrorDetail;

  constructor(message: string, detail: CliErrorDetail, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.detail = detail;
  }
}

export function usageError(message: string): CliError {
  return new CliError(message, { code: "usage", exitCode: EXIT_CODE.usage });
}

/** The text of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
