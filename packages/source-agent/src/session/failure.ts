import { AgentError, messageOf } from "@vmferry/core";
import { asProblemCode } from "@vmferry/agent";
import type { ProblemCode } from "@vmferry/protocol";
import { QmpError, StreamError } from "@vmferry/qemu";

export interface Failure {
  readonly code: ProblemCode;
  readonly detail: string;
}

/** What an error of any layer means to whoever asked for the migration. */
export function failureOf(error: unknown): Failure {
  const detail = messageOf(error);
  if (error instanceof StreamError) {
    const truncated = error.code === "stream-truncated";
    return { code: truncated ? "stream-truncated" : "stream-unsupported", detail };
  }
  if (error instanceof QmpError) return { code: qmpFailure(error), detail };
  if (error instanceof AgentError) return { code: asProblemCode(error.code, "internal"), detail };
  return { code: "internal", detail };
}

function qmpFailure(error: QmpError): ProblemCode {
  return error.code === "qmp-closed" ? "source-qemu-died" : "source-qemu-failed";
}
