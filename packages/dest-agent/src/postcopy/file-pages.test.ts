import { mkdtemp, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  createLogger,
  ManualClock,
  PageFileWriter,
  pageFilePlace,
  SharedPageFiles,
  type PageFileError,
  type PageFilePlace,
  type ReadableFile,
} from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import { limits } from "@vmferry/protocol";
import { FilePages, type FilePagesOptions } from "./file-pages.ts";
import type { FoundPages, WantedPages } from "./pages-from-file.ts";

const { PAGE_BYTES } = limits;
const BLOCKS = [
  { name: "pc.ram", lengthBytes: 1000 * PAGE_BYTES },
  { name: "vga.vram", lengthBytes: 10 * PAGE_BYTES },
];
const KEY = {
  key: "5e".repeat(32),
  guestName: "web1",
  uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
};
const ABOUT = { migrationId: "m1", epoch: 3 };

/** A real share, of which opening and reading fail or hang when a test says so. */
class FaultyShare extends SharedPageFiles {
  opens = 0;
  onOpen: () => Promise<void> = () => Promise.resolve();
  onRead: () => Promise<void> = () => Promise.resolve();

  override async open(path: string): Promise<ReadableFile | null> {
    this.opens++;
    await this.onOpen();
    const file = await super.open(path);
    if (file === null) return null;
    return {
      inode: file.inode,
      sizeBytes: file.sizeBytes,
      read: async (buffer, position) => {
        await this.onRead();
        return await file.read(buffer, position);
      },
      close: () => file.close(),
    };
  }
}

let sharedDir: string;
let place: PageFilePlace;
let files: FaultyShare;
let clock: ManualClock;
let pages: FilePages;
const troubles: string[] = [];
/** What vCPUs wait for. */
let asked: { readonly block: number; readonly firstPage: number; readonly pages: number }[];
/** Pages that came, as `block:page=first byte`, in their order. */
let came: string[];

const wanted: WantedPages = {
  asked: () => asked,
  isMissing: (block, page) => !came.some((each) => each.startsWith(`${block}:${page}=`)),
};

beforeEach(async () => {
  sharedDir = await mkdtemp(join(tmpdir(), "vmferry-shared-"));
  place = pageFilePlace(sharedDir, ABOUT, { key: KEY, blocks: BLOCKS });
  files = new FaultyShare();
  clock = new ManualClock();
  troubles.length = 0;
  asked = [];
  came = [];
});
afterEach(async () => {
  pages.close();
  await rm(sharedDir, { recursive: true });
});

function reading(options: Partial<FilePagesOptions> = {}): FilePages {
  const logger = createLogger({ role: "dest", level: "info", stream: { write: () => undefined } });
  const onTrouble = ({ code }: PageFileError): void => {
    troubles.push(code);
  };
  pages = new FilePages({ ...{ place, logger, onTrouble, files, clock }, ...options });
  return pages;
}

function create(about: PageFilePlace = place): Promise<PageFileWriter> {
  return PageFileWriter.create(about.path, about.subject, about);
}

/** A batch of pages, as they are counted in the file; negative ones are of zeros. */
async function write(writer: PageFileWriter, ...batch: readonly number[]): Promise<void> {
  for (const page of batch) {
    if (page < 0) await writer.addZeros(-page, 1);
    else writer.add(page, Buffer.alloc(PAGE_BYTES, page));
  }
  await writer.flush();
}

/** The clock goes on, in steps, while files are waited for. */
async function pass<T>(promise: Promise<T>): Promise<T> {
  const state = { isOver: false };
  const over = promise.finally(() => (state.isOver = true));
  over.catch(() => undefined);
  do {
    clock.advance(50);
    await new Promise((resolve) => setTimeout(resolve, 1));
  } while (!state.isOver);
  return await over;
}

function take(found: readonly FoundPages[]): void {
  for (const { block, first, count, content } of found) {
    for (let page = first; page < first + count; page++) {
      if (wanted.isMissing(block, page))
        came.push(`${block}:${page}=${content === "zero" ? "z" : content[9]!}`);
    }
  }
}

/** Until no more will come. */
async function takeAll(): Promise<string[]> {
  for (;;) {
    const found = await pass(pages.next(wanted));
    if (found === null) return came;
    take(found);
  }
}

describe("pages", () => {
  test("come batch after batch, until the file says that it was all", async () => {
    const writer = await create();
    await write(writer, 900, 901, -902, -903);
    await write(writer, 998, -999, -1000, 1001);
    await writer.close({ complete: true });
    reading();
    expect(await takeAll()).toEqual([
      ...["0:900=132", "0:901=133", "0:902=z", "0:903=z"],
      ...["0:998=230", "0:999=z", "1:0=z", "1:1=233"],
    ]);
    expect([pages.isComplete, troubles]).toEqual([true, []]);
  });

  test("that a vCPU waits for come first", async () => {
    const writer = await create();
    await write(writer, 900);
    await write(writer, 901);
    await write(writer, 5, 6);
    await writer.close({ complete: true });
    reading();
    take((await pass(pages.next(wanted)))!);
    while (!pages.isComplete) await pass(Promise.resolve());
    asked = [{ block: 0, firstPage: 4, pages: 2 }];
    take((await pass(pages.next(wanted)))!);
    asked = [];
    expect(came).toEqual(["0:900=132", "0:5=5"]);
    expect(await takeAll()).toEqual(["0:900=132", "0:5=5", "0:901=133", "0:6=6"]);
  });

  test("come from a file that is made later, as it grows", async () => {
    reading();
    const first = pages.next(wanted);
    const writer = await create();
    await write(writer, 7);
    take((await pass(first))!);
    const second = pages.next(wanted);
    await write(writer, 3);
    take((await pass(second))!);
    expect(came).toEqual(["0:7=7", "0:3=3"]);
    await writer.close({ complete: false });
  });

  test("that have come another way are not given", async () => {
    const writer = await create();
    await write(writer, 900, 901, -902);
    await writer.close({ complete: true });
    came = ["0:900=net", "0:902=net"];
    reading();
    expect(await takeAll()).toEqual(["0:900=net", "0:902=net", "0:901=133"]);
  });

  test("come from the new file when another life of the source has made one", async () => {
    const old = await create();
    await write(old, 900);
    reading();
    take((await pass(pages.next(wanted)))!);
    await old.close({ complete: false });
    await rm(place.path);
    const made = await create();
    await write(made, 900, 10);
    await made.close({ complete: true });
    expect(await takeAll()).toEqual(["0:900=132", "0:10=10"]);
    expect(troubles).toEqual([]);
  });
});

describe("what is wrong with the file", () => {
  test.each([
    ["another migration's", { about: { ...ABOUT, migrationId: "m2" } }],
    ["another epoch's", { about: { ...ABOUT, epoch: 2 } }],
    ["another guest's", { key: { ...KEY, guestName: "web2" } }],
    ["under another key", { key: { ...KEY, key: "5f".repeat(32) } }],
  ])(
    "is told once, and nothing of it is taken: %s",
    async (
      _what,
      {
        about = ABOUT,
        key = KEY,
      }: {
        about?: typeof ABOUT;
        key?: typeof KEY;
      },
    ) => {
      const other = pageFilePlace(sharedDir, about, { key, blocks: BLOCKS });
      const writer = await create(other);
      await write(writer, 900);
      await writer.close({ complete: true });
      if (other.path !== place.path) await rename(other.path, place.path);
      reading();
      const next = pages.next(wanted);
      while (files.opens < 4) await pass(Promise.resolve());
      expect(troubles).toEqual(["page-file-foreign"]);
      pages.close();
      expect(await pass(next)).toBeNull();
    },
  );

  test("does not keep what is right of it from coming: a page was changed", async () => {
    const writer = await create();
    await write(writer, 900, 901, 902);
    await write(writer, 10);
    await writer.close({ complete: true });
    const bytes = await readFile(place.path);
    const at = bytes.length - (64 + 48) - 2 * PAGE_BYTES - 2500;
    bytes[at]! ^= 1;
    await writeFile(place.path, bytes);
    reading({ settleMs: 100 });
    const all = await takeAll();
    expect(all).toHaveLength(3);
    expect(all).toContain("0:10=10");
    expect(troubles).toEqual(["page-file-damaged"]);
  });

  test("ends it where a record was changed; what was before is taken", async () => {
    const writer = await create();
    await write(writer, 900);
    const { size } = await stat(place.path);
    await write(writer, 10);
    await writer.close({ complete: true });
    const bytes = await readFile(place.path);
    bytes[size + 26]! ^= 0x80;
    await writeFile(place.path, bytes);
    reading({ settleMs: 100 });
    expect(await takeAll()).toEqual(["0:900=132"]);
    expect(troubles).toEqual(["page-file-damaged"]);
  });

  test("ends it where it was cut off; what was taken before stays", async () => {
    const writer = await create();
    await write(writer, 900);
    await write(writer, 10);
    reading();
    take((await pass(pages.next(wanted)))!);
    const handle = await open(place.path, "r+");
    await handle.truncate(200);
    await handle.close();
    await takeAll();
    expect(troubles).toEqual(["page-file-truncated"]);
    await writer.close({ complete: false });
  });

  test("is told after a while where it never becomes a page file", async () => {
    const writer = await create();
    await writer.close({ complete: false });
    await writeFile(place.path, "something else, and long enough for a header");
    reading();
    const next = pages.next(wanted);
    while (troubles.length === 0) await pass(Promise.resolve());
    expect(troubles).toEqual(["page-file-damaged"]);
    pages.close();
    expect(await pass(next)).toBeNull();
  });
});

describe("a share that hangs", () => {
  test("is told, and opened no second time until it has answered", async () => {
    const hang = new Deferred();
    files.onOpen = () => hang.promise;
    reading();
    const next = pages.next(wanted);
    for (let turn = 0; turn < 1000; turn++) {
      clock.advance(50);
      await Promise.resolve();
    }
    await pass(Promise.resolve());
    expect([files.opens, troubles]).toEqual([1, ["page-file-unreachable"]]);
    const writer = await create();
    await write(writer, 7);
    files.onOpen = () => Promise.resolve();
    hang.resolve();
    take((await pass(next))!);
    expect(came).toEqual(["0:7=7"]);
    await writer.close({ complete: false });
  });

  test("is not tried more often because vCPUs wait for pages", async () => {
    files.onOpen = () => Promise.reject(Object.assign(new Error("EIO: injected"), { errno: -5 }));
    reading();
    const next = pages.next(wanted);
    for (let turn = 0; turn < 100; turn++) {
      pages.asked();
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect([files.opens, troubles]).toEqual([1, ["page-file-failed"]]);
    pages.close();
    expect(await next).toBeNull();
  });

  test("while pages are read gives them when it answers again", async () => {
    const writer = await create();
    await write(writer, 7);
    await writer.close({ complete: true });
    let reads = 0;
    files.onRead = () =>
      ++reads === 5
        ? Promise.reject(Object.assign(new Error("EIO"), { errno: -5 }))
        : Promise.resolve();
    reading();
    expect(await takeAll()).toEqual(["0:7=7"]);
  });
});
