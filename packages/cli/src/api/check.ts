/** One thing that was looked at: by an agent before a migration, or by `vmferry doctor` here. */
export interface Check {
  readonly name: string;
  /** `skip`: it could not be looked at, or there is nothing to look at. */
  readonly status: "pass" | "warn" | "fail" | "skip";
  readonly detail: string;
  /** What to do about it. */
  readonly hint?: string | null;
}
