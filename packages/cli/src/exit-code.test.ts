// What the code has, the help and the documentation have to have: no more and no less.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { runCommand } from "./command-fixture.ts";
import { EXIT_CODE } from "./exit-code.ts";

const CODES = Object.values<number>(EXIT_CODE).toSorted((a, b) => a - b);

const numbersIn = (text: string, pattern: RegExp): number[] =>
  [...text.matchAll(pattern)].map(([, number]) => Number(number));

test("the table of docs/cli.md has every exit status that there is", () => {
  const document = readFileSync(new URL("../../../docs/cli.md", import.meta.url), "utf8");
  const [, section = ""] = /^## Exit status\n([\s\S]*?)^## /m.exec(document) ?? [];
  expect(numbersIn(section, /^\| (\d+) \|/gm)).toEqual(CODES);
});

test("so does the help", async () => {
  const { stdout } = await runCommand(["--help"], { api: "http://127.0.0.1:9" });
  const [, section = ""] = /^Exit status:\n([\s\S]*?)\n\n/m.exec(stdout) ?? [];
  expect(numbersIn(section, /(\d+) /g)).toEqual(CODES);
});
