import { mkdir, mkdtemp, readdir, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { StunRef } from "@vmferry/protocol";
import { SharedFiles } from "./shared-files.ts";
import { Witness } from "./witness.ts";

const DAY_MS = 24 * 60 * 60 * 1000;
const stun: StunRef = { migrationId: "m1", epoch: 8, generation: 1 };
const LEFTOVER = "70b2bbb6-030f-480c-9b0c-eb34712b67a1.tmp";

let sharedDir: string;
let directory: string;
let files: SharedFiles;
let witness: Witness;

beforeEach(async () => {
  sharedDir = await mkdtemp(join(tmpdir(), "vmferry-shared-"));
  directory = join(sharedDir, "vmferry-witness");
  files = new SharedFiles();
  witness = await Witness.open(sharedDir, { files });
  await witness.prove("m1");
  await witness.decide(stun, "taken", "d1");
  await writeFile(join(directory, LEFTOVER), "");
});
afterEach(async () => {
  vi.useRealTimers();
  await rm(sharedDir, { recursive: true });
});

async function age(name: string, days: number): Promise<void> {
  const path = join(directory, name);
  const atMs = (await stat(path)).mtimeMs - days * DAY_MS;
  await utimes(path, atMs / 1000, atMs / 1000);
}

const names = async (): Promise<string[]> => (await readdir(directory)).sort();

test("what is older goes, and what is younger stays", async () => {
  await witness.prove("m2");
  for (const name of [LEFTOVER, "m1.8.1.decision", "m1.proof"]) await age(name, 31);
  await age("m2.proof", 29);
  expect(await witness.clean()).toBe(3);
  expect(await names()).toEqual(["m2.proof"]);
  expect(await witness.clean(28 * DAY_MS)).toBe(1);
  expect(await names()).toEqual([]);
});

test("a decision stays as long as its proof", async () => {
  await age("m1.8.1.decision", 100);
  expect(await witness.clean()).toBe(0);
  expect(await witness.look(stun)).toBe("taken");
  await witness.forget("m1");
  expect(await witness.clean()).toBe(1);
  expect(await witness.look(stun)).toBeNull();
});

test("nothing is decided anew of which the decision has gone", async () => {
  for (const name of ["m1.8.1.decision", "m1.proof"]) await age(name, 31);
  expect(await witness.clean()).toBe(2);
  await expect(witness.decide(stun, "revoked", "s1")).rejects.toMatchObject({
    code: "witness-not-usable",
  });
});

test("a proof has gone durably before the first decision goes", async () => {
  for (const name of ["m1.8.1.decision", "m1.proof"]) await age(name, 31);
  const steps: string[] = [];
  const remove = files.remove.bind(files);
  vi.spyOn(files, "remove").mockImplementation(async (path) => {
    if (!path.endsWith(".tmp")) steps.push(path.slice(directory.length + 1));
    await remove(path);
  });
  const sync = files.syncDirectory.bind(files);
  vi.spyOn(files, "syncDirectory").mockImplementation(async (path) => {
    steps.push("sync");
    await sync(path);
  });
  await witness.clean();
  expect(steps).toEqual(["sync", "m1.proof", "sync", "m1.8.1.decision", "sync"]);
});

test("what is not a witness's own stays, however old", async () => {
  await rm(join(directory, LEFTOVER));
  await mkdir(join(directory, LEFTOVER));
  const strangers = ["notes.txt", "m1.decision", "x.tmp", "m1.8.1.decision.orig"];
  for (const name of strangers) await writeFile(join(directory, name), "");
  for (const name of [LEFTOVER, ...strangers]) await age(name, 100);
  expect(await witness.clean()).toBe(0);
  expect(await names()).toEqual([LEFTOVER, ...strangers, "m1.8.1.decision", "m1.proof"].sort());
});

test("a host whose clock is years ahead removes nothing that is young", async () => {
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 3650 * DAY_MS });
  expect(await witness.clean()).toBe(0);
});

test("no more than 10,000 entries are looked at", async () => {
  const list = vi.spyOn(files, "list");
  await witness.clean();
  expect(list).toHaveBeenCalledWith(directory, 10_000);
  expect((await files.list(directory, 2)).length).toBe(2);
});

test("a decision does not wait until everything is clean", async () => {
  const done: string[] = [];
  const cleaned = witness.clean().then(() => done.push("cleaned"));
  const decided = witness
    .decide({ ...stun, generation: 2 }, "taken", "d1")
    .then(() => done.push("decided"));
  await Promise.all([cleaned, decided]);
  expect(done).toEqual(["decided", "cleaned"]);
});
