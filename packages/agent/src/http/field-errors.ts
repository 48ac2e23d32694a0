import type { FieldError } from "@vmferry/protocol";
import type { FastifySchemaValidationError } from "fastify";

/** A body of 64 KiB has room for thousands of mistakes; the first few are enough to go on. */
const FIELD_ERRORS_MAX = 20;

/** The validator's findings as paths that a caller recognises, with a sentence's second half. */
export function fieldErrors(found: readonly FastifySchemaValidationError[]): FieldError[] {
  return found.slice(0, FIELD_ERRORS_MAX).map(fieldError);
}

function fieldError({
  instancePath,
  keyword,
  message,
  params,
}: FastifySchemaValidationError): FieldError {
  const path = instancePath.split("/").slice(1).map(unescapePointer);
  switch (keyword) {
    case "additionalProperties":
      return field([...path, String(params["additionalProperty"])], "is not known");
    case "required":
      return field([...path, String(params["missingProperty"])], "is missing");
    case "enum":
      return field(path, `must be one of ${JSON.stringify(params["allowedValues"])}`);
    case "const":
      return field(path, `must be ${JSON.stringify(params["allowedValue"])}`);
    default:
      return field(path, message ?? `does not satisfy ${keyword}`);
  }
}

function field(path: readonly string[], detail: string): FieldError {
  return { field: path.join("."), detail };
}

function unescapePointer(segment: string): string {
  return segment.replaceAll("~1", "/").replaceAll("~0", "~");
}
