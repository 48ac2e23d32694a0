import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const CHECKOUT = fileURLToPath(new URL("../..", import.meta.url));

const DOCUMENTS = [
  ...["README.md", "ARCHITECTURE.md", "guest/README.md"],
  ...readdirSync(join(CHECKOUT, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => join("docs", name)),
];

const read = (name: string): string => readFileSync(join(CHECKOUT, name), "utf8");

/** As GitHub makes them of headings. */
function anchorsOf(name: string): Set<string> {
  const headings = [...read(name).matchAll(/^#{1,6} (.+)$/gm)].map(([, text = ""]) => text);
  return new Set(
    headings.map((text) =>
      text
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-"),
    ),
  );
}

test.each(DOCUMENTS)("links of %s lead somewhere", (name) => {
  const prose = read(name)
    .replace(/^```[\s\S]*?^```/gm, "")
    .replace(/`[^`\n]*`/g, "");
  const dead = [...prose.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target = ""]) => target)
    .filter((target) => !/^[a-z]+:/.test(target))
    .filter((target) => {
      const [path = "", anchor] = target.split("#");
      const file = path === "" ? name : relative(CHECKOUT, join(CHECKOUT, dirname(name), path));
      if (!existsSync(join(CHECKOUT, file))) return true;
      return anchor !== undefined && !anchorsOf(file).has(anchor);
    });
  expect(dead).toEqual([]);
});

test("every npm script that a document names exists", () => {
  const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
  for (const name of DOCUMENTS) {
    for (const [, script = ""] of read(name).matchAll(/npm run ([a-z][a-z:]*)/g)) {
      expect(Object.keys(scripts), name).toContain(script);
    }
  }
});

/** Where a test says that a check has found something: by a start, a preflight, or by itself. */
const PROVOKING = [
  /expectRefused\(guest, "([a-z-]+)"/g,
  /expectBad\(checks, \{ name: "([a-z-]+)"/g,
  /errors: \[\{ field: "([a-z-]+)" \}\]/g,
  /get\("([a-z-]+)"\)\)\.toMatchObject\(\{ status: "fail"/g,
  /^describe\("([a-z-]+)", (?:(?!^describe)[\s\S])*?status: "(?:fail|warn)"/gm,
];

test("every check of docs/preflight.md is provoked by a test", () => {
  const rows = /^\| `([a-z-]+)` \|[^|]*\|[^|]*\|[^|]*\|$/gm;
  const documented = [...read("docs/preflight.md").matchAll(rows)].map(([, name]) => name!);
  const provoked = ["test", "packages/source-agent/src", "packages/dest-agent/src"]
    .flatMap((directory) =>
      readdirSync(join(CHECKOUT, directory), { recursive: true, encoding: "utf8" })
        .filter((name) => name.endsWith(".test.ts"))
        .map((name) => read(join(directory, name))),
    )
    .flatMap((text) => PROVOKING.flatMap((pattern) => [...text.matchAll(pattern)]))
    .map(([, name]) => name!);
  expect(documented).toContain("shared-directory");
  expect(documented.filter((name) => !provoked.includes(name))).toEqual([]);
});
