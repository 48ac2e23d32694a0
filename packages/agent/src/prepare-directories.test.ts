import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { prepareDirectories } from "./prepare-directories.ts";

let stateDir: string;

beforeEach(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "vmferry-state-"));
});

afterEach(async () => {
  await rm(stateDir, { recursive: true });
});

test("a second agent over the same state is refused, and leaves the sockets of the first alone", async () => {
  const dirs = { stateDir, imageDir: join(stateDir, "images"), lockMsMax: 100 };
  const runDir = await prepareDirectories(dirs);
  await writeFile(join(runDir, "live.sock"), "");
  await expect(prepareDirectories(dirs)).rejects.toMatchObject({
    detail: { code: "state-dir-in-use" },
  });
  expect(existsSync(join(runDir, "live.sock"))).toBe(true);
});
