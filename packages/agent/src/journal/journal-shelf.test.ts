import { mkdtemp, readdir, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { JournalShelf } from "./journal-shelf.ts";
import { sourceRecords } from "./sample-records.ts";

const web1 = { guest: "web1", uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8" };
const dotted = { guest: "a.b_c-d", uuid: "7ba7b810-9dad-41d1-80b4-00c04fd430c8" };

let stateDir: string;
let shelf: JournalShelf<"source">;

beforeEach(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "vmferry-shelf-"));
  shelf = await JournalShelf.open("source", stateDir);
});

afterEach(async () => {
  await rm(stateDir, { recursive: true });
});

test("a shelf gives each guest its journal, and finds it again", async () => {
  const journal = await shelf.take(web1);
  await journal.append(sourceRecords[0]!);
  await journal.close();
  const again = await (await JournalShelf.open("source", stateDir)).take(web1);
  expect([again.last, again.incarnation]).toEqual([sourceRecords[0], journal.incarnation]);
  await again.close();
});

test("a shelf lists the guests that have one, whatever else lies there", async () => {
  for (const identity of [web1, dotted]) await (await shelf.take(identity)).close();
  await writeFile(join(stateDir, "journals", "notes.txt"), "");
  await writeFile(join(stateDir, "journals", "web1~1234.journal"), "");
  const listed = (await shelf.list()).map((identity) => ({ ...identity }));
  expect(listed.sort((a, b) => b.guest.localeCompare(a.guest))).toEqual([web1, dotted]);
});

test("a journal that nobody needs any more is gone", async () => {
  await (await shelf.take(web1)).remove();
  expect(await shelf.list()).toEqual([]);
});

test("a journal is old when nothing was written to it for a month", async () => {
  await (await shelf.take(web1)).close();
  const inDays = (days: number): Date => new Date(Date.now() + days * 86_400_000);
  expect([await shelf.isOld(web1, inDays(29)), await shelf.isOld(web1, inDays(31))]).toEqual([
    false,
    true,
  ]);
});

test("a journal that is opened is no younger for it", async () => {
  await (await shelf.take(web1)).close();
  const [name] = await readdir(join(stateDir, "journals"));
  const longAgo = new Date("2020-01-01T00:00:00Z");
  await utimes(join(stateDir, "journals", name!), longAgo, longAgo);
  const journal = await shelf.take(web1);
  expect(await shelf.writtenAt(web1)).toEqual(longAgo);
  await journal.append(sourceRecords[0]!);
  await journal.close();
  expect((await shelf.writtenAt(web1)).getTime()).toBeGreaterThan(longAgo.getTime());
});

test("the journals are for nobody else's eyes", async () => {
  await (await shelf.take(web1)).close();
  const directory = join(stateDir, "journals");
  expect((await stat(directory)).mode & 0o777).toBe(0o700);
  const [name] = await readdir(directory);
  expect((await stat(join(directory, name!))).mode & 0o077).toBe(0);
});
