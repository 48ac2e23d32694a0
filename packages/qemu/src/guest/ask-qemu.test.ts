// A script in QEMU's place: what today's real one says depends on the host.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { askQemu } from "./ask-qemu.ts";

const GREETING = { QMP: { version: {}, capabilities: [] } };
const CPUS = [
  { name: "qemu64", "unavailable-features": [], "migration-safe": true },
  { name: "Denverton", "unavailable-features": ["sha-ni", "mpx"] },
];

let directory: string;
let binary: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "ask-qemu-"));
  binary = join(directory, "qemu");
});
afterEach(() => rm(directory, { recursive: true }));

/** It reads what it is told, and says these. */
async function install(replies: readonly object[]): Promise<void> {
  const lines = [GREETING, ...replies].map((reply) => JSON.stringify(reply)).join("\n");
  await writeFile(
    binary,
    `#!/bin/sh\necho "$@" >> ${directory}/calls\ncat > ${directory}/told\ncat <<'END'\n${lines}\nEND\n`,
    { mode: 0o755 },
  );
}

test("says which CPU models there are, and what the host lacks of them", async () => {
  await install([
    { return: CPUS, id: "cpus" },
    { return: {}, id: "post-copy" },
  ]);
  const { cpuModels, postCopyRefusal } = await askQemu(binary, "tcg");
  expect(cpuModels.get("qemu64")).toEqual([]);
  expect(cpuModels.get("Denverton")).toEqual(["sha-ni", "mpx"]);
  expect(cpuModels.get("made-up")).toBeUndefined();
  expect(postCopyRefusal).toBe("");
});

test("says why post-copy is not possible, in QEMU's words", async () => {
  const error = { class: "GenericError", desc: "Postcopy is not supported: Userfaultfd \n" };
  await install([
    { return: CPUS, id: "cpus" },
    { error, id: "post-copy" },
  ]);
  const { postCopyRefusal } = await askQemu(binary, "tcg");
  expect(postCopyRefusal).toBe("Postcopy is not supported: Userfaultfd");
});

test("starts no machine, with the accelerator that was asked for, and tells it to quit", async () => {
  await install([
    { return: CPUS, id: "cpus" },
    { return: {}, id: "post-copy" },
  ]);
  await askQemu(binary, "kvm");
  expect(await readFile(join(directory, "calls"), "utf8")).toMatch(
    /^-machine none -accel kvm .*-S/,
  );
  const told = (await readFile(join(directory, "told"), "utf8")).trim().split("\n");
  expect(JSON.parse(told.at(-1)!)).toEqual({ execute: "quit" });
});

async function calls(): Promise<number> {
  return (await readFile(join(directory, "calls"), "utf8")).trim().split("\n").length;
}

test("those who ask for the same share one process, also later, until QEMU is another", async () => {
  const replies = [
    { return: CPUS, id: "cpus" },
    { return: {}, id: "post-copy" },
  ];
  await install(replies);
  await Promise.all([askQemu(binary, "tcg"), askQemu(binary, "tcg")]);
  await askQemu(binary, "tcg");
  expect(await calls()).toBe(1);
  await askQemu(binary, "kvm");
  expect(await calls()).toBe(2);
  await rm(binary);
  await install([{ return: [], id: "cpus" }, replies[1]!]);
  expect((await askQemu(binary, "tcg")).cpuModels.size).toBe(0);
});

test("one that refuses post-copy, or could not be asked, is asked again", async () => {
  const error = { class: "GenericError", desc: "Postcopy is not supported: Userfaultfd" };
  await install([
    { return: CPUS, id: "cpus" },
    { error, id: "post-copy" },
  ]);
  await askQemu(binary, "tcg");
  await askQemu(binary, "tcg");
  expect(await calls()).toBe(2);
  await rm(binary);
  await install([]);
  for (let i = 0; i < 2; i++) await expect(askQemu(binary, "tcg")).rejects.toThrow();
  expect(await calls()).toBe(4);
});

test.each([
  ["does not answer", []],
  ["answers half of it", [{ return: CPUS, id: "cpus" }]],
  [
    "has no list of models",
    [
      { return: {}, id: "cpus" },
      { return: {}, id: "post-copy" },
    ],
  ],
])("one that %s cannot be used", async (_, replies) => {
  await install(replies);
  await expect(askQemu(binary, "tcg")).rejects.toMatchObject({
    detail: { code: "qemu-not-usable", binary },
  });
});

test("one that is not there cannot be used", async () => {
  await expect(askQemu(join(directory, "none"), "tcg")).rejects.toMatchObject({
    detail: { code: "qemu-not-usable" },
  });
});
