/** How the API's document says what a route answers: successes, and problems by their codes. */
import { PROBLEM_CONTENT_TYPE, problemCodes, ProblemSchema } from "@vmferry/protocol";
import type { ProblemCode } from "@vmferry/protocol";
import type { TSchema } from "typebox";

export interface DescribedResponse {
  readonly description: string;
  readonly headers?: Readonly<Record<string, object>>;
  readonly content: Readonly<Record<string, { readonly schema: TSchema }>>;
}

/** Any route may answer with these. */
const ANYWHERE: readonly ProblemCode[] = [
  "invalid-request",
  "unauthorized",
  "host-not-allowed",
  "internal",
];
const WITH_BODY: readonly ProblemCode[] = ["payload-too-large", "unsupported-media-type"];

export function json(description: string, schema: TSchema): DescribedResponse {
  return { description, content: { "application/json": { schema } } };
}

/** With the path of what was made. */
export function located(response: DescribedResponse): DescribedResponse {
  const location = { type: "string", description: "The path of what was made." };
  return { ...response, headers: { location } };
}

export function problems(...codes: readonly ProblemCode[]): Record<string, DescribedResponse> {
  return byStatus([...ANYWHERE, ...codes]);
}

/** Of a route that takes a body. */
export function bodyProblems(...codes: readonly ProblemCode[]): Record<string, DescribedResponse> {
  return byStatus([...ANYWHERE, ...WITH_BODY, ...codes]);
}

function byStatus(codes: readonly ProblemCode[]): Record<string, DescribedResponse> {
  const statuses = Map.groupBy(codes, (code) => problemCodes[code].status);
  const responses = [...statuses].map(([status, ofStatus]) => [status, problem(ofStatus)] as const);
  const rest = "Any other problem; see the list of codes.";
  return { ...Object.fromEntries(responses), default: { ...problem([]), description: rest } };
}

function problem(codes: readonly ProblemCode[]): DescribedResponse {
  return {
    description: codes.map((code) => `\`${code}\`: ${problemCodes[code].title}.`).join(" "),
    content: { [PROBLEM_CONTENT_TYPE]: { schema: ProblemSchema } },
  };
}
