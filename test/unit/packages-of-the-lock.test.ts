/** What `npm ci` of an old npm, on an old Node.js, must not stumble over: Debian 12 has 9 and 18. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

interface LockedPackage {
  readonly bin?: Readonly<Record<string, string>>;
  readonly optional?: true;
  readonly os?: readonly string[] | string;
  readonly cpu?: readonly string[] | string;
  readonly engines?: { readonly node?: string };
}

const { packages } = JSON.parse(
  readFileSync(new URL("../../package-lock.json", import.meta.url), "utf8"),
) as { readonly packages: Readonly<Record<string, LockedPackage>> };

// npm 9 removes the program of an optional package that does not fit the machine, also where it is
// another package's by then: that is how Node.js 24 went missing.
test("no two packages bring a program of the same name", () => {
  const programs = Object.entries(packages)
    .filter(([path]) => /^node_modules\/(?:@[^/]+\/)?[^/]+$/.test(path))
    .flatMap(([, { bin = {} }]) => Object.keys(bin));
  expect(programs).toContain("node");
  expect(programs.filter((name, index) => programs.indexOf(name) !== index)).toEqual([]);
});

// They run on the Node.js 24 that comes along, but npm looks at the one that it runs on itself, and
// leaves out optional packages that do not want it without a word. What to do with those named here:
// take their `engines` out of package-lock.json.
test("no optional package for this platform asks for a newer Node.js than npm may run on", () => {
  const left = Object.entries(packages)
    .filter(([, { optional, os, cpu }]) => {
      return optional === true && [os].flat().includes("linux") && [cpu].flat().includes("x64");
    })
    .filter(([path]) => !path.endsWith("-musl"))
    .filter(([, { engines }]) => !/^(?:>= ?(?:\d|1[0-8])(?:\..*)?)?$/.test(engines?.node ?? ""))
    .map(([path]) => path);
  expect(left).toEqual([]);
});
