import { problemCodes, type ProblemCode } from "@vmferry/protocol";

/** A code that came from elsewhere, such as the peer: itself if the catalogue has it. */
export function asProblemCode(code: string, otherwise: ProblemCode): ProblemCode {
  return Object.hasOwn(problemCodes, code) ? (code as ProblemCode) : otherwise;
}
