import { codeOf, messageOf } from "@vmferry/core";
import type { MigrationRole, ProblemCode } from "@vmferry/protocol";
import { QmpError, ReturnPathError, StreamError } from "@vmferry/qemu";
import { asProblemCode } from "../as-problem-code.ts";

/** Why a migration ends, as its object and the peer are told. */
export interface Failure {
  readonly code: ProblemCode;
  readonly detail: string;
}

/** What an error of any layer means to whoever asked for the migration; `role` = who met it. */
export function failureOf(error: unknown, role: MigrationRole): Failure {
  return { code: problemCodeOf(error, role), detail: messageOf(error) };
}

function problemCodeOf(error: unknown, role: MigrationRole): ProblemCode {
  if (error instanceof StreamError) {
    if (error.code === "stream-truncated") return "stream-truncated";
    // At the dest the stream's prelude comes from the peer.
    return role === "source" ? "stream-unsupported" : "protocol-violation";
  }
  if (error instanceof ReturnPathError) return "dest-qemu-failed";
  if (error instanceof QmpError) {
    if (error.code === "qmp-closed") return `${role}-qemu-died`;
    return `${role}-qemu-failed`;
  }
  return asProblemCode(codeOf(error) ?? "internal", "internal");
}
