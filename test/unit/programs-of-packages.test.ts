import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

interface LockFile {
  readonly packages: Readonly<
    Record<string, { readonly bin?: Readonly<Record<string, string>>; readonly optional?: true }>
  >;
}

// npm 9, which Debian 12 and 13 have, removes the program of an optional package that does not fit
// the machine, also where it is another package's by then: that is how Node.js 24 went missing.
test("no two packages bring a program of the same name", () => {
  const lock = JSON.parse(
    readFileSync(new URL("../../package-lock.json", import.meta.url), "utf8"),
  ) as LockFile;
  const programs = Object.entries(lock.packages)
    .filter(([path]) => /^node_modules\/(?:@[^/]+\/)?[^/]+$/.test(path))
    .flatMap(([, { bin = {} }]) => Object.keys(bin));
  expect(programs).toContain("node");
  expect(programs.filter((name, index) => programs.indexOf(name) !== index)).toEqual([]);
});
