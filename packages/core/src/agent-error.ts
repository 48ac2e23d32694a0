/** What every expected failure carries: a stable code, and its data in fields. */
export interface ErrorDetail {
  readonly code: string;
}

/**
 * An expected failure. `detail` is a union discriminated by `code`, so that a handler can switch
 * on it and a log line gets the data as fields; `message` is for people.
 */
export class AgentError<Detail extends ErrorDetail = ErrorDetail> extends Error {
  readonly detail: Detail;

  constructor(message: string, detail: Detail, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.detail = detail;
  }

  get code(): Detail["code"] {
    return this.detail.code;
  }
}

/** The text of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** The stable code of an expected failure; null for anything else that was thrown. */
export function codeOf(thrown: unknown): string | null {
  // `instanceof` cannot say which Detail it is, and would say `any`.
  return thrown instanceof AgentError ? (thrown as AgentError).code : null;
}
