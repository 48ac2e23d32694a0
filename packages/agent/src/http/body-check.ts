import type { FastifyRequest } from "fastify";
import type { TSchema } from "typebox";
import { ProblemError } from "../problem-error.ts";
import { fieldErrors } from "./field-errors.ts";

/** Where the route cannot say beforehand which schema it is; fills defaults in. */
export function refuseInvalidBody(request: FastifyRequest, schema: TSchema): void {
  const isValid = request.compileValidationSchema(schema, "body");
  if (isValid(request.body)) return;
  const errors = fieldErrors(isValid.errors ?? []);
  const [first] = errors;
  const subject = first === undefined || first.field === "" ? "it" : first.field;
  const text = `The body is not valid: ${subject} ${first?.detail ?? "is wrong"}.`;
  throw new ProblemError(text, { code: "invalid-request", errors });
}
