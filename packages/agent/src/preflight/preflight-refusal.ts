import { OVERRIDABLE_CHECKS, type Check, type OverridableCheck } from "@vmferry/protocol";
import { ProblemError } from "../problem-error.ts";

/** What the request allows is a warning, and no reason to refuse. */
export function allowing(
  checks: readonly Check[],
  allowUnsafe: readonly OverridableCheck[],
): Check[] {
  return checks.map((check) =>
    check.status === "fail" && (allowUnsafe as readonly string[]).includes(check.name)
      ? { ...check, status: "warn", detail: `Allowed by the request: ${check.detail}` }
      : check,
  );
}

/** Throws `preflight-failed`, with every check that failed. */
export function refuseFailed(checks: readonly Check[]): void {
  const failed = checks.filter(({ status }) => status === "fail");
  if (failed.length === 0) return;
  const errors = failed.map(({ name, detail, hint }) => ({
    field: name,
    detail: hint === null ? detail : `${detail} ${hint}`,
  }));
  const text = failed.map(({ name, detail }) => `${name}: ${detail}`).join("; ");
  const overridable = failed.filter(({ name }) => isOverridable(name)).map(({ name }) => name);
  const override =
    overridable.length === failed.length
      ? ` To begin all the same, name ${overridable.join(", ")} in allowUnsafe.`
      : "";
  throw new ProblemError(`The guest would not get there: ${text}.${override}`, {
    code: "preflight-failed",
    errors,
  });
}

function isOverridable(name: string): boolean {
  return (OVERRIDABLE_CHECKS as readonly string[]).includes(name);
}
