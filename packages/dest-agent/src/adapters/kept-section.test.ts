import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { dropSection, keepSection, readSection } from "./kept-section.ts";

const CLAIM = { migrationId: "m1", epoch: 3, generation: 1, incarnation: "s1" };
const SECTION = {
  sectionId: 2,
  blocks: [
    { name: "pc.ram", lengthBytes: 2 ** 40 },
    { name: "/rom@etc/acpi/tables", lengthBytes: 131_072 },
  ],
};
const FILE_KEY = {
  key: "5e".repeat(32),
  guestName: "web1",
  uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
};

const NO_WAYS = { fileKey: null, hasUrgentChannel: false };

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-section-"));
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

/** Keeps a section, of which a part is changed by hand. */
async function keepWith(change: Record<string, unknown>): Promise<void> {
  await keepSection(directory, CLAIM, { ...SECTION, ...NO_WAYS });
  const path = join(directory, "ram-section.json");
  const kept = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
  await writeFile(path, JSON.stringify({ ...kept, ...change }));
}

describe("the kept RAM section", () => {
  it("is read as it was written", async () => {
    await keepSection(directory, CLAIM, { ...SECTION, ...NO_WAYS });
    expect(await readSection(directory)).toEqual({ claim: CLAIM, section: SECTION, ...NO_WAYS });
  });

  it("is read with what opens the page file", async () => {
    await keepSection(directory, CLAIM, { ...SECTION, fileKey: FILE_KEY, hasUrgentChannel: false });
    expect(await readSection(directory)).toMatchObject({ fileKey: FILE_KEY });
  });

  it("is read with whether QEMU has an urgent channel, which it had not in earlier releases", async () => {
    await keepSection(directory, CLAIM, { ...SECTION, fileKey: null, hasUrgentChannel: true });
    expect(await readSection(directory)).toMatchObject({ hasUrgentChannel: true });
    await keepWith({ hasUrgentChannel: undefined });
    expect(await readSection(directory)).toMatchObject({ hasUrgentChannel: false });
    await keepWith({ version: 2 });
    await expect(readSection(directory)).rejects.toMatchObject({ code: "ram-section-unusable" });
  });

  it("is of a version that earlier releases refuse, where QEMU has an urgent channel", async () => {
    await keepSection(directory, CLAIM, { ...SECTION, fileKey: null, hasUrgentChannel: true });
    expect(await readFile(join(directory, "ram-section.json"), "utf8")).toContain('"version":2');
  });

  it.each([
    ["of an earlier release", undefined],
    ["that is none", { ...FILE_KEY, key: "5e" }],
    ["of nobody", { ...FILE_KEY, guestName: "" }],
    ["of no UUID", { ...FILE_KEY, uuid: "../x" }],
  ])("is read without a key %s: then nothing comes by a share", async (_what, fileKey) => {
    await keepWith({ fileKey });
    expect(await readSection(directory)).toMatchObject({ section: SECTION, fileKey: null });
  });

  it("takes the place of an earlier one", async () => {
    await keepSection(
      directory,
      { ...CLAIM, migrationId: "m0", epoch: 2 },
      { sectionId: 1, blocks: [], ...NO_WAYS },
    );
    await keepSection(directory, CLAIM, { ...SECTION, ...NO_WAYS });
    expect(await readSection(directory)).toEqual({ claim: CLAIM, section: SECTION, ...NO_WAYS });
  });

  it("is not read any more when it was dropped", async () => {
    await keepSection(directory, CLAIM, { ...SECTION, ...NO_WAYS });
    await dropSection(directory);
    await dropSection(directory);
    expect(await readSection(directory)).toBeNull();
  });

  it.each([
    ["without its migration", { migrationId: 7 }],
    ["with half an epoch", { epoch: 4.5 }],
    ["without its source", { incarnation: undefined }],
    ["of another version", { version: 2 }],
    ["without blocks", { blocks: [] }],
    ["of too many blocks", { blocks: Array.from({ length: 257 }, (_, i) => block(`b${i}`)) }],
    ["with half a page", { blocks: [block("a", 2048)] }],
    ["with an empty block", { blocks: [block("a", 0)] }],
    ["with a nameless block", { blocks: [block("")] }],
    ["with a name that is too long", { blocks: [block("x".repeat(256))] }],
    ["with a name twice", { blocks: [block("a"), block("a")] }],
    ["with a block that is none", { blocks: [null] }],
    ["without its number", { sectionId: -1 }],
  ])("is refused: %s", async (_what, change) => {
    await keepWith(change);
    await expect(readSection(directory)).rejects.toMatchObject({
      code: "ram-section-unusable",
    });
  });

  it.each([
    ["half of it", '{"version":1'],
    ["something else", "[]"],
    ["nothing", ""],
    ["more than it can have", " ".repeat(600_000)],
  ])("is refused: %s", async (_what, text) => {
    await writeFile(join(directory, "ram-section.json"), text);
    await expect(readSection(directory)).rejects.toMatchObject({
      code: "ram-section-unusable",
    });
  });
});

function block(name: string, lengthBytes = 4096): { name: string; lengthBytes: number } {
  return { name, lengthBytes };
}
