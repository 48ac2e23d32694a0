import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { MemoryPageFiles } from "./memory-page-files.ts";
import { PAGE_BYTES } from "./page-file-limits.ts";
import { sampleReader } from "./sample-page-file.ts";

/* A file that another implementation wrote, from docs/page-file.md alone. */

const subject = {
  scope: "missing" as const,
  migrationId: "m-1",
  epoch: 9,
  guestName: "gäst",
  uuid: "00112233-4455-6677-8899-aabbccddeeff",
  blocks: [
    { name: "pc.ram", lengthBytes: 40 * PAGE_BYTES },
    { name: "/rom@ü", lengthBytes: 8 * PAGE_BYTES },
  ],
};
const secret = Buffer.from(Array.from({ length: 32 }, (_, i) => i));

function noise(page: number): Buffer {
  const parts = Array.from({ length: 128 }, (_, i) =>
    createHash("sha256").update(`v1 page ${page} ${i}`).digest(),
  );
  return Buffer.concat(parts);
}

test("version 1 is read for ever", async () => {
  const bytes = await readFile(join(import.meta.dirname, "fixtures", "v1.pages"));
  const reader = await sampleReader(new MemoryPageFiles(bytes), { secret }, subject);
  await reader.refresh();
  expect(await reader.complete).toMatchObject({ batches: 2, dataPages: 3, zeroPages: 6 });
  expect(await reader.verify()).toBe(3);
  expect(await reader.read(3)).toEqual(noise(3));
  expect(await reader.read(47)).toEqual(noise(47));
  expect(await reader.read(20)).toEqual(Buffer.from("vmferry ".repeat(512)));
  for (const page of [0, 10, 14]) expect(await reader.read(page)).toBe("zero");
  for (const page of [1, 9, 15, 46]) expect(await reader.read(page)).toBeNull();
});
