import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";

const MODULE = new URL("failpoint.ts", import.meta.url).href;

/** A program that passes the failpoints `a`, `a` and `b`, and says what it got through. */
function run(plan: string): { output: string; errors: string; signal: string | null } {
  const program = `
    import { failpoint } from ${JSON.stringify(MODULE)};
    for (const name of ["a", "a", "b"]) {
      try { failpoint(name); console.log("passed " + name); }
      catch (error) { console.log(error.code + " at " + name); }
    }`;
  const { stdout, stderr, signal } = spawnSync(
    process.execPath,
    ["--input-type=module", "-e", program],
    { env: { ...process.env, VMFERRY_FAILPOINTS: plan }, encoding: "utf8" },
  );
  return { output: stdout.trim().replaceAll("\n", ", "), errors: stderr, signal };
}

test("without a plan every failpoint is passed", () => {
  expect(run("").output).toBe("passed a, passed a, passed b");
});

test("a failpoint fails once, at the passage that was asked for", () => {
  expect(run("a=fail:ENOSPC").output).toBe("ENOSPC at a, passed a, passed b");
  expect(run("a=fail:EIO@2,b=fail:ENOSPC").output).toBe("passed a, EIO at a, ENOSPC at b");
});

test("a process that is to be killed says where first", () => {
  const { output, errors, signal } = run("b=kill");
  expect([output, signal]).toEqual(["passed a, passed a", "SIGKILL"]);
  expect(errors).toContain("failpoint b: kill");
});

test("a trace names every failpoint once", () => {
  const { output, errors } = run("trace");
  expect(output).toBe("passed a, passed a, passed b");
  expect(errors.match(/^failpoint .*$/gm)).toEqual(["failpoint a", "failpoint b"]);
});

test.each(["a", "a=", "a=pause", "a=kill@0", "a=fail:", "A B=kill", "a=kill,,b=kill"])(
  "a plan that is none ends the process: %s",
  (plan) => {
    const { output, errors } = run(plan);
    expect(output).toBe("");
    expect(errors).toContain("VMFERRY_FAILPOINTS");
  },
);
