import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readFile, stat } from "node:fs/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { decodeStoreIndex } from "@vmferry/agent";
import { indexPathOf, PageStore, removePageStore } from "./page-store.ts";

const PAGE = 4096;
const blocks = [
  { name: "pc.ram", lengthBytes: PAGE * 1000 },
  { name: "rom", lengthBytes: PAGE * 4 },
];

let directory: string;
let path: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-store-"));
  path = join(directory, "m1.pages");
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

function create(options: { onRoom?: () => void; onFailed?: (error: unknown) => void } = {}) {
  return PageStore.create({
    path,
    blocks,
    onRoom: () => undefined,
    onFailed: (error) => {
      throw error;
    },
    ...options,
  });
}

async function contentOf(store: PageStore, block: number, page: number): Promise<number> {
  const into = Buffer.alloc(PAGE);
  await store.read(block, page, 1, into);
  expect(into.equals(Buffer.alloc(PAGE, into[0]))).toBe(true);
  return into[0]!;
}

describe("a store of pages", () => {
  it("gives at once what was written, while more is put", async () => {
    const store = await create();
    const writing = (async () => {
      for (let page = 0; page < 500; page++) store.put(0, page, Buffer.alloc(PAGE, 7), 0);
      await store.written();
    })();
    for (let page = 500; page < 1000; page++) store.put(0, page, Buffer.alloc(PAGE, 8), 0);
    await writing;
    const into = Buffer.alloc(PAGE);
    for (let page = 0; page < 500; page++) {
      expect(store.readWritten(0, page, into)).toBe(true);
      expect(into.equals(Buffer.alloc(PAGE, 7))).toBe(true);
    }
    await store.settled();
    await store.close();
  });

  it("keeps the last content of each page, in whatever order they come", async () => {
    const store = await create();
    const expected = new Map<number, number>();
    for (let round = 1; round <= 3; round++) {
      for (let page = round; page < 1000; page += round) {
        const value = (page * 7 + round) & 0xff;
        store.put(0, page, Buffer.alloc(PAGE, value), 0);
        expected.set(page, value);
      }
    }
    store.put(1, 3, Buffer.alloc(2 * PAGE, 99), PAGE);
    await store.settled();
    for (const [page, value] of expected) expect(await contentOf(store, 0, page)).toBe(value);
    expect(await contentOf(store, 1, 3)).toBe(99);
    expect(store.pages.count).toBe(expected.size + 1);
    await store.close();
  });

  it("gives what was put, also where that is not written yet", async () => {
    const store = await create();
    for (let page = 0; page < 1000; page += 2) store.put(0, page, Buffer.alloc(PAGE, 7), 0);
    const contents = [0, 500, 998].map((page) => contentOf(store, 0, page));
    expect(await Promise.all(contents)).toEqual([7, 7, 7]);
    await store.close();
  });

  it("reads zeros where a page became zero, also at the end of the file", async () => {
    const store = await create();
    store.put(0, 5, Buffer.alloc(PAGE, 1), 0);
    store.putZero(0, 5);
    store.putZero(1, 3);
    store.put(0, 6, Buffer.alloc(PAGE, 2), 0);
    await store.settled();
    const into = Buffer.alloc(2 * PAGE);
    await store.read(0, 5, 2, into);
    expect([into[0], into[PAGE]]).toEqual([0, 2]);
    expect(await contentOf(store, 1, 3)).toBe(0);
    expect([store.isZero(0, 5), store.isZero(0, 6)]).toEqual([true, false]);
    await store.close();
  });

  it("has no room while too much waits for the disk, and tells when it has again", async () => {
    let told = 0;
    const store = await create({ onRoom: () => told++ });
    let put = 0;
    while (store.hasRoom) store.put(0, (2 * put++) % 1000, Buffer.alloc(PAGE, 3), 0);
    expect(put).toBeLessThan(5000);
    await store.settled();
    expect(told).toBeGreaterThan(0);
    expect(store.hasRoom).toBe(true);
    await store.close();
  });

  it("is found again by its index, and takes the space of what was put alone", async () => {
    const store = await create();
    for (let page = 0; page < 10; page++) store.put(0, page, Buffer.alloc(PAGE, page + 1), 0);
    store.putZero(0, 4);
    await store.settled();
    await store.saveIndex({ migrationId: "m1", epoch: 4 });
    await store.close();
    expect((await stat(path)).blocks * 512).toBeLessThan(100 * PAGE);
    const found = decodeStoreIndex(await readFile(indexPathOf(path)));
    expect(found).toMatchObject({ migrationId: "m1", epoch: 4, blocks });
    const onRoom = (): void => undefined;
    const again = await PageStore.reopen({ path, blocks, onRoom, onFailed: onRoom }, found);
    expect([await contentOf(again, 0, 3), await contentOf(again, 0, 4)]).toEqual([4, 0]);
    await again.close();
    await removePageStore(path);
    await expect(stat(path)).rejects.toThrow("ENOENT");
  });

  it("takes no file that is there already", async () => {
    await (await create()).close();
    await expect(create()).rejects.toMatchObject({ code: "EEXIST" });
  });
});
