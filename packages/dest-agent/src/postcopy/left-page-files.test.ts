import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger, pageFilePath } from "@vmferry/agent";
import type { StunRef } from "@vmferry/protocol";
import { removeLeftPageFiles } from "./left-page-files.ts";

const logger = createLogger({ role: "dest", level: "silent" });
const over: readonly StunRef[] = [
  { migrationId: "m1", epoch: 7, generation: 1 },
  { migrationId: "m2", epoch: 3, generation: 0 },
];

let sharedDir: string;

beforeEach(async () => {
  sharedDir = await mkdtemp(join(tmpdir(), "vmferry-shared-"));
});
afterEach(async () => {
  await rm(sharedDir, { recursive: true });
});

test("what has served goes, and what another hand-over may need stays", async () => {
  await mkdir(join(sharedDir, "vmferry-pages"));
  for (const [migrationId, epoch] of [
    ["m1", 7],
    ["m1", 8],
    ["m2", 3],
    ["m3", 7],
  ] as const) {
    await writeFile(pageFilePath(sharedDir, { migrationId, epoch }), "");
  }
  await removeLeftPageFiles({ sharedDir, over, logger });
  const left = (await readdir(join(sharedDir, "vmferry-pages"))).sort();
  expect(left).toEqual(["m1.8.pages", "m3.7.pages"]);
});

test("a share without files, or without a directory for them, is no trouble", async () => {
  await removeLeftPageFiles({ sharedDir, over, logger });
  await writeFile(join(sharedDir, "vmferry-pages"), "not a directory");
  await removeLeftPageFiles({ sharedDir, over, logger });
  expect(await readdir(sharedDir)).toEqual(["vmferry-pages"]);
});
