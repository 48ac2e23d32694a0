import { expect, test } from "vitest";
import type { Check } from "@vmferry/protocol";
import { ProblemError } from "../problem-error.ts";
import { allowing, refuseFailed } from "./preflight-refusal.ts";

const MEMORY: Check = {
  name: "memory",
  status: "fail",
  detail: "too little",
  hint: "End a guest.",
};
const IMAGES: Check = { name: "images", status: "fail", detail: "taken", hint: null };
const CLOCK: Check = { name: "clock", status: "warn", detail: "off", hint: "Run NTP." };

function refusal(checks: readonly Check[]): ProblemError | null {
  try {
    refuseFailed(checks);
    return null;
  } catch (error) {
    return error as ProblemError;
  }
}

test("a migration is refused with every check that failed, and no other", () => {
  const error = refusal([MEMORY, CLOCK, IMAGES])!;
  expect(error).toBeInstanceOf(ProblemError);
  expect(error.detail).toEqual({
    code: "preflight-failed",
    errors: [
      { field: "memory", detail: "too little End a guest." },
      { field: "images", detail: "taken" },
    ],
  });
  expect(error.message).toContain("memory: too little; images: taken");
});

test("a warning refuses nothing", () => {
  expect(refusal([CLOCK])).toBeNull();
});

test("the refusal says how to override it, where all of it may be", () => {
  expect(refusal([MEMORY])!.message).toContain("name memory in allowUnsafe");
  expect(refusal([MEMORY, IMAGES])!.message).not.toContain("allowUnsafe");
});

test("what the request allows does not refuse, and is still told", () => {
  const checks = allowing([MEMORY, CLOCK], ["memory"]);
  expect(refusal(checks)).toBeNull();
  expect(checks).toMatchObject([
    { name: "memory", status: "warn", detail: "Allowed by the request: too little" },
    CLOCK,
  ]);
});

test("what it does not name refuses all the same", () => {
  expect(refusal(allowing([MEMORY], ["dest-space"]))).not.toBeNull();
});
