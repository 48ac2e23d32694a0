import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readApiToken } from "./api-token.ts";

let directory = "";
let file = "";

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-cli-"));
  file = join(directory, "token");
  await writeFile(file, "s3cret\n");
});

afterAll(async () => {
  await rm(directory, { recursive: true });
});

test("no token is needed where none is set, and an empty variable sets none", () => {
  expect(readApiToken({})).toBeNull();
  expect(readApiToken({ VMFERRY_API_TOKEN: "", VMFERRY_API_TOKEN_FILE: "" })).toBeNull();
});

test("the token comes from its variable or from the file that the other one names", () => {
  expect(readApiToken({ VMFERRY_API_TOKEN: "s3cret" })).toBe("s3cret");
  expect(readApiToken({ VMFERRY_API_TOKEN_FILE: file })).toBe("s3cret");
});

test("two tokens are one too many", () => {
  const both = { VMFERRY_API_TOKEN: "s3cret", VMFERRY_API_TOKEN_FILE: file };
  expect(() => readApiToken(both)).toThrow("both set");
});

test("the file that a flag names wins over both variables", () => {
  const environment = { VMFERRY_API_TOKEN: "other", VMFERRY_API_TOKEN_FILE: "/none" };
  expect(readApiToken(environment, file)).toBe("s3cret");
  expect(() => readApiToken(environment, "/none")).toThrow(/^--api-token-file: .*\/none/);
});

test("a file that is not there is named", () => {
  const missing = join(directory, "none");
  expect(() => readApiToken({ VMFERRY_API_TOKEN_FILE: missing })).toThrow(missing);
});

test.each(["two words", "line\nbreak", "ümlaut", "x".repeat(513)])(
  "a token that no header can carry is refused and not shown: %j",
  (token) => {
    expect(() => readApiToken({ VMFERRY_API_TOKEN: token })).toThrow(
      /^VMFERRY_API_TOKEN has to be one word of visible ASCII characters$/,
    );
  },
);
