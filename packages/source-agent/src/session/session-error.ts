import { AgentError } from "@vmferry/core";
import type { ProblemCode } from "@vmferry/protocol";

/** Why a migration ended, with the code that `migration.error` will carry. */
export class SessionError extends AgentError<{ readonly code: ProblemCode }> {}
