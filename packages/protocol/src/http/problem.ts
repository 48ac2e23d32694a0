import { Type, type Static } from "typebox";
import type { Immutable } from "./immutable.ts";
import { problemCodes, type ProblemCode } from "./problem-codes.ts";

export const PROBLEM_CONTENT_TYPE = "application/problem+json";

export const ProblemCodeSchema = Type.Unsafe<ProblemCode>({
  type: "string",
  enum: Object.keys(problemCodes),
});

const FieldErrorSchema = Type.Object({
  /** A dotted path into the body or query, such as `disks.0.id`; of `preflight-failed` a check. */
  field: Type.String(),
  detail: Type.String(),
});

/** RFC 9457, with the stable code and, for requests, the fields that are wrong. */
export const ProblemSchema = Type.Object({
  type: Type.String(),
  title: Type.String(),
  status: Type.Integer(),
  detail: Type.String(),
  code: ProblemCodeSchema,
  errors: Type.Optional(Type.Array(FieldErrorSchema)),
});

export type FieldError = Immutable<Static<typeof FieldErrorSchema>>;
export type Problem = Immutable<Static<typeof ProblemSchema>>;

/** The problem that an occurrence of `code` is reported as. */
export function makeProblem(
  code: ProblemCode,
  detail: string,
  errors?: readonly FieldError[],
): Problem {
  const { status, title } = problemCodes[code];
  const problem = { type: `urn:vmferry:problem:${code}`, title, status, detail, code };
  return errors === undefined ? problem : { ...problem, errors };
}
