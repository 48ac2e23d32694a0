import { readFileSync } from "node:fs";
import { STATUS_CODES } from "node:http";
import { expect, test } from "vitest";
import { makeProblem } from "./problem.ts";
import { isProblemCode, problemCodes, type ProblemCode } from "./problem-codes.ts";

test("every code is kebab-case and has an error status and a title", () => {
  for (const [code, { status, title }] of Object.entries(problemCodes)) {
    expect(code).toMatch(/^[a-z0-9]+(?:-[a-z0-9]+)*$/);
    expect(Object.keys(STATUS_CODES).filter((known) => known >= "400")).toContain(String(status));
    expect(title).toMatch(/^[A-Z].*[^.]$/);
  }
});

test("every code has a sentence that documents it", () => {
  const lines = readFileSync(new URL("problem-codes.ts", import.meta.url), "utf8").split("\n");
  for (const code of Object.keys(problemCodes)) {
    const line = lines.findIndex((text) => new RegExp(`^  "?${code}"?: `).test(text));
    expect(lines[line - 1], code).toMatch(/\*\/$/);
  }
});

test("a property that every object has is not a code", () => {
  expect(isProblemCode("guest-busy")).toBe(true);
  expect(isProblemCode("constructor")).toBe(false);
  expect(isProblemCode("__proto__")).toBe(false);
});

test("a problem has the members of RFC 9457, its code, and the fields where there are any", () => {
  const code: ProblemCode = "guest-busy";
  const problem = {
    type: "urn:vmferry:problem:guest-busy",
    title: "The guest is busy",
    status: 409,
    detail: "web1 is being migrated.",
    code,
  };
  expect(makeProblem(code, "web1 is being migrated.")).toEqual(problem);
  const errors = [{ field: "name", detail: "is taken" }];
  expect(makeProblem(code, "web1 is being migrated.", errors)).toEqual({ ...problem, errors });
});
