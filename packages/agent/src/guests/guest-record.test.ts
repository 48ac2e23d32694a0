import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { fillGuestDefinition } from "@vmferry/protocol";
import {
  readGuestRecord as readAny,
  removeGuestRecord,
  writeGuestRecord,
  type GuestRecord,
} from "./guest-record.ts";

const definition = fillGuestDefinition({
  name: "web1",
  machine: "pc-q35-7.2",
  memoryBytes: 2 ** 29,
  boot: { kernel: "vmlinuz" },
});
const record: GuestRecord = {
  definition,
  accel: "tcg",
  uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
  qemuVersion: "10.0.2",
  epoch: 3,
  stage: "incoming",
  identity: { pid: 4711, startTimeTicks: 815 } as unknown as GuestRecord["identity"],
};

let directory: string;
let path: string;

/** One that can be read. */
async function readGuestRecord(from: string): Promise<GuestRecord> {
  const read = await readAny(from);
  if (typeof read === "string") throw new Error(`the record is ${read}`);
  return read;
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-record-"));
  path = join(directory, "guest.json");
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

describe("what is written down of a guest", () => {
  test("is read as it was written", async () => {
    await writeGuestRecord(directory, record);
    expect(await readGuestRecord(directory)).toMatchObject(record);
  });

  test("is replaced as a whole, and nothing else is left in the directory", async () => {
    await writeGuestRecord(directory, record);
    await writeGuestRecord(directory, { ...record, stage: "owned", epoch: 4 });
    expect(await readGuestRecord(directory)).toMatchObject({ stage: "owned", epoch: 4 });
    expect(await readdir(directory)).toEqual(["guest.json"]);
  });

  test("survives being written again from what was read", async () => {
    await writeGuestRecord(directory, record);
    const once = await readFile(path, "utf8");
    await writeGuestRecord(directory, await readGuestRecord(directory));
    expect(await readFile(path, "utf8")).toBe(once);
  });

  test("is for nobody else's eyes", async () => {
    await writeGuestRecord(directory, record);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
  });

  test("has defaults that came with a later version filled in", async () => {
    const { name, machine, memoryBytes, boot } = definition;
    const older = { version: 1, ...record, definition: { name, machine, memoryBytes, boot } };
    await writeFile(path, JSON.stringify(older));
    expect((await readGuestRecord(directory)).definition).toEqual(definition);
  });

  test("is gone once it was removed, and may be removed twice", async () => {
    await writeGuestRecord(directory, record);
    await removeGuestRecord(directory);
    await removeGuestRecord(directory);
    expect(await readAny(directory)).toBe("absent");
  });
});

describe("a record", () => {
  test("is absent where there is no such file", async () => {
    expect(await readAny(directory)).toBe("absent");
    expect(await readAny(join(directory, "missing"))).toBe("absent");
  });

  test.each([
    ["empty", ""],
    ["torn", '{ "version": 1, "definition": { "name": "we'],
    ["null", "null"],
    ["a number", "5"],
    ["of another version", JSON.stringify({ ...record, version: 2 })],
    ["without a version", JSON.stringify(record)],
  ])("that is %s is not taken for an absent one", async (_what, text) => {
    await writeFile(path, text);
    expect(await readAny(directory)).toBe("unreadable");
  });

  test("that the disk does not give is not taken for an absent one", async () => {
    await mkdir(path);
    expect(await readAny(directory)).toBe("unreadable");
  });

  test("is not mistaken for one that was about to be written", async () => {
    await writeGuestRecord(directory, record);
    await writeFile(`${path}.new`, "torn");
    expect(await readGuestRecord(directory)).toMatchObject({ epoch: 3 });
  });
});
