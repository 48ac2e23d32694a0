/** What another life of the agent does with a store that was to go by a share. */
import { access, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger, ManualClock, PageFileReader, pageFilePlace } from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import { keepFileKey } from "../adapters/kept-file-key.ts";
import { PageStore } from "../adapters/page-store.ts";
import type { MemoryRestOptions } from "./memory-rest.ts";
import { storedRest, type StoredRest } from "./stored-rest.ts";

const { PAGE_BYTES } = limits;
const BLOCKS = [{ name: "pc.ram", lengthBytes: 100 * PAGE_BYTES }];
const KEY = {
  key: "5e".repeat(32),
  guestName: "web1",
  uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
};
const ABOUT = { migrationId: "m1", epoch: 3, generation: 1, incarnation: "s1" };

let directory: string;
let memoryDir: string;
let sharedDir: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-rest-"));
  [memoryDir, sharedDir] = [join(directory, "memory"), join(directory, "shared")];
  await mkdir(memoryDir);
  await mkdir(sharedDir);
});
afterEach(() => rm(directory, { recursive: true }));

/** Pages 10 and 90, as an earlier life has left them. */
async function left({ withKey }: { readonly withKey: boolean }): Promise<StoredRest> {
  const path = join(memoryDir, "m1.pages");
  const onFailed = (error: unknown): void => {
    throw error as Error;
  };
  const store = await PageStore.create({ path, blocks: BLOCKS, onRoom: () => undefined, onFailed });
  for (const page of [10, 90]) store.put(0, page, Buffer.alloc(PAGE_BYTES, page), 0);
  await store.settled();
  await store.saveIndex(ABOUT);
  await store.close();
  if (withKey) await keepFileKey(path, KEY);
  const unreachable: MemoryRestOptions["dialPages"] = {
    pages: () => Promise.reject(new Error("the link is gone")),
  };
  return storedRest({
    ...{ memoryDir, sharedDir, about: ABOUT, dialPages: unreachable },
    clock: new ManualClock(),
    random: () => 0,
    logger: createLogger({ role: "source", level: "error", stream: { write: () => undefined } }),
  });
}

test("it writes what is stored to the share", async () => {
  const stored = await left({ withKey: true });
  expect(await stored.exists()).toBe(true);
  const rest = (await stored.serve())!;
  const { path, subject, secret } = pageFilePlace(sharedDir, ABOUT, { key: KEY, blocks: BLOCKS });
  const isWhole = async (): Promise<boolean> => {
    const reader = await PageFileReader.open(path, subject, { secret });
    await reader.refresh();
    const pages = [await reader.read(10), await reader.read(90), await reader.read(11)];
    const { phase } = reader.state;
    await reader.close();
    return phase === "complete" && pages.map((page) => page?.[0]).join() === "10,90,";
  };
  await expect.poll(() => isWhole().catch(() => false), { interval: 10 }).toBe(true);
  await rest.close();
  await stored.discard();
  await expect.poll(() => readdir(join(sharedDir, "vmferry-pages")), { interval: 10 }).toEqual([]);
  expect(await readdir(memoryDir)).toEqual([]);
  expect(await stored.exists()).toBe(false);
});

test("where nothing was stored there is nothing to serve", async () => {
  const stored = await left({ withKey: false });
  await stored.discard();
  expect([await stored.serve(), await stored.exists()]).toEqual([null, false]);
});

test.each(["damaged", "unreadable"])("what is %s is not taken for absent", async (how) => {
  const stored = await left({ withKey: false });
  const path = join(memoryDir, "m1.pages.index");
  const index = await readFile(path);
  await rm(path);
  // A directory is there, and cannot be read.
  await (how === "damaged" ? writeFile(path, "damaged") : mkdir(path));
  await expect(stored.serve()).rejects.toThrow("m1.pages.index cannot be used: ");
  expect(await stored.exists()).toBe(true);
  await rm(path, { recursive: true });
  await writeFile(path, index);
  const rest = (await stored.serve())!;
  await rest.close();
});

test("it writes nothing there where that was not asked for", async () => {
  const stored = await left({ withKey: false });
  const rest = (await stored.serve())!;
  await rest.close();
  await stored.discard();
  await expect(access(join(sharedDir, "vmferry-pages"))).rejects.toThrow();
});

test("an index that is being written when it is given up does not come behind its removal", async () => {
  const stored = await left({ withKey: false });
  const rest = (await stored.serve())!;
  rest.keep().catch(() => undefined);
  await rest.close();
  await stored.discard();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(await readdir(memoryDir)).toEqual([]);
});
