import { AgentError } from "@vmferry/core";
import type { FieldError, ProblemCode } from "@vmferry/protocol";

/**
 * An expected failure that a caller of the API is told about: the code's status and title come
 * from the catalogue, the message becomes the detail.
 */
export class ProblemError extends AgentError<{
  readonly code: ProblemCode;
  readonly errors?: readonly FieldError[];
}> {}
