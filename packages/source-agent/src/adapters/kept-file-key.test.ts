import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { keepFileKey, keyPathOf, readFileKey } from "./kept-file-key.ts";
import { removePageStore } from "./page-store.ts";

const KEY = {
  key: "5e".repeat(32),
  guestName: "web1",
  uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
};

let directory: string;
let store: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-key-"));
  store = join(directory, "m1.pages");
});
afterEach(() => rm(directory, { recursive: true }));

test("the key is read as it was kept, and for its user alone", async () => {
  await keepFileKey(store, KEY);
  expect(await readFileKey(store)).toEqual(KEY);
  expect((await stat(keyPathOf(store))).mode & 0o777).toBe(0o600);
});

test("there is none where none was kept", async () => {
  expect(await readFileKey(store)).toBeNull();
});

test("it goes with its store", async () => {
  await keepFileKey(store, KEY);
  await removePageStore(store);
  expect(await readFileKey(store)).toBeNull();
});

test.each([
  ["half of it", '{"key":"5e5e'],
  ["another thing", "[]"],
  ["a key that is none", JSON.stringify({ ...KEY, key: "5e" })],
  ["more than it can have", JSON.stringify({ ...KEY, more: "x".repeat(5000) })],
])("what is no key opens nothing: %s", async (_what, text) => {
  await writeFile(keyPathOf(store), text);
  expect(await readFileKey(store)).toBeNull();
});
