import { AgentError, messageOf } from "@vmferry/core";
import { asProblemCode } from "@vmferry/agent";
import type { ProblemCode } from "@vmferry/protocol";
import { QmpError, ReturnPathError, StreamError } from "@vmferry/qemu";

export interface Failure {
  readonly code: ProblemCode;
  readonly detail: string;
}

/** What an error of any layer means to the source and to whoever asked for the migration. */
export function failureOf(error: unknown): Failure {
  const detail = messageOf(error);
  if (error instanceof StreamError) return { code: "protocol-violation", detail };
  if (error instanceof QmpError || error instanceof ReturnPathError) {
    return { code: "dest-qemu-failed", detail };
  }
  if (error instanceof AgentError) return { code: asProblemCode(error.code, "internal"), detail };
  return { code: "internal", detail };
}
