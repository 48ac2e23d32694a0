import { AgentError } from "@vmferry/core";
import type { ProblemCode } from "@vmferry/protocol";

/** Why a migration ended, with the code that `migration.error` will carry. */
export class SessionError extends AgentError<{ readonly code: ProblemCode }> {}

/** Either closes the agent's connection to it. */
export const MONITOR_GONE =
  "the source's QEMU has died, or somebody has ended its monitor's connection";
