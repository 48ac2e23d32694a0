import { AgentError, messageOf, type ErrorDetail } from "@vmferry/core";
import { isProblemCode, makeProblem, PROBLEM_CONTENT_TYPE, type Problem } from "@vmferry/protocol";
import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";
import { ProblemError } from "../problem-error.ts";
import { fieldErrors } from "./field-errors.ts";

/** The few failures of the framework that have a code of their own. */
const FRAMEWORK_CODES = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: "unsupported-media-type",
  FST_ERR_CTP_EMPTY_TYPE: "unsupported-media-type",
  FST_ERR_CTP_BODY_TOO_LARGE: "payload-too-large",
} as const;

/** The problem that tells a caller about `thrown`; whatever was not expected is `internal`. */
export function problemOf(thrown: unknown): Problem {
  if (thrown instanceof ProblemError) {
    return makeProblem(thrown.code, thrown.message, thrown.detail.errors);
  }
  if (thrown instanceof AgentError) {
    const { code } = thrown.detail as ErrorDetail;
    if (isProblemCode(code)) return makeProblem(code, thrown.message);
  }
  return isFrameworkError(thrown)
    ? frameworkProblem(thrown)
    : makeProblem("internal", "The agent's log has the details.");
}

/** The header lines that go with a problem, its type apart. */
export function problemHeaders({ code }: Problem): Readonly<Record<string, string>> {
  return code === "unauthorized" ? { "www-authenticate": 'Bearer realm="vmferry"' } : {};
}

/** Answers with the problem of `thrown`. What nobody expected is logged, here and nowhere else. */
export function sendProblem(thrown: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const problem = problemOf(thrown);
  if (problem.code === "internal") {
    const { method, routeOptions } = request;
    request.log.error({ err: thrown, method, route: routeOptions.url }, "request failed");
  }
  void reply
    .code(problem.status)
    .headers(problemHeaders(problem))
    .header("content-type", PROBLEM_CONTENT_TYPE)
    .send(JSON.stringify(problem));
}

function isFrameworkError(thrown: unknown): thrown is FastifyError {
  if (!(thrown instanceof Error)) return false;
  const { code = "", statusCode = 500 } = thrown as Partial<FastifyError>;
  return code.startsWith("FST_") && statusCode >= 400 && statusCode < 500;
}

function partOf({ validationContext }: FastifyError): string {
  return validationContext === "querystring" ? "query" : (validationContext ?? "request");
}

function frameworkProblem(error: FastifyError): Problem {
  if (error.validation !== undefined) {
    const errors = fieldErrors(error.validation);
    const [first] = errors;
    // An empty path is the whole of it.
    const subject = first?.field === "" ? "it" : first?.field;
    const detail = `The ${partOf(error)} is not valid: ${subject ?? "it"} ${first?.detail ?? "is wrong"}.`;
    return makeProblem("invalid-request", detail, errors);
  }
  if (Object.hasOwn(FRAMEWORK_CODES, error.code)) {
    const code = FRAMEWORK_CODES[error.code as keyof typeof FRAMEWORK_CODES];
    return makeProblem(code, messageOf(error));
  }
  return makeProblem("invalid-request", messageOf(error));
}
