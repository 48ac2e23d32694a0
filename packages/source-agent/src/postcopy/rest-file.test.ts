import { mkdir, mkdtemp, open, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  createLogger,
  PageFileReader,
  pageFilePlace,
  PageSet,
  SharedPageFiles,
  type AppendedFile,
  type PageFileError,
  type PageFilePlace,
} from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import { limits } from "@vmferry/protocol";
import { RestFile, type RestFileOptions } from "./rest-file.ts";
import type { SentPageHashes } from "./stored-frame.ts";
import type { StoredPages } from "./stored-pages.ts";

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

/** Every third page is missing; of them every fifth is of zeros. */
class FakeStore implements StoredPages {
  readonly pages = new PageSet(BLOCKS);
  reads = 0;
  isBroken = false;

  constructor() {
    for (let page = 0; page < 1000; page += 3) this.pages.add(0, page);
    for (let page = 0; page < 10; page++) this.pages.add(1, page);
  }

  isZero(block: number, page: number): boolean {
    return block === 0 && page % 15 === 0;
  }

  read(block: number, firstPage: number, pages: number, into: Buffer): Promise<void> {
    this.reads++;
    if (this.isBroken) return Promise.reject(new Error("EIO: injected"));
    for (let page = 0; page < pages; page++) {
      into.fill(firstPage + page + block, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    }
    return Promise.resolve();
  }
}

/** A real share, of which a call fails or hangs when a test says so. */
class FaultyShare extends SharedPageFiles {
  onWrite: () => Promise<void> = () => Promise.resolve();
  onSync: () => Promise<void> = () => Promise.resolve();

  override async create(path: string): Promise<AppendedFile> {
    const file = await super.create(path);
    return {
      write: async (bytes, position) => {
        await this.onWrite();
        return await file.write(bytes, position);
      },
      sync: async () => {
        await this.onSync();
        await file.sync();
      },
      close: () => file.close(),
    };
  }
}

let sharedDir: string;
let place: PageFilePlace;
let store: FakeStore;
let files: FaultyShare;
/** Pages of which the digest was told, as they are in the file. */
const hashed = new Map<number, number>();
const hashes: SentPageHashes = {
  page: (block, page, data) => {
    hashed.set(block * 1000 + page, data[17]!);
  },
  zeroPage: (block, page) => {
    hashed.set(block * 1000 + page, -1);
  },
};
const troubles: PageFileError[] = [];

beforeEach(async () => {
  sharedDir = await mkdtemp(join(tmpdir(), "vmferry-shared-"));
  place = pageFilePlace(sharedDir, ABOUT, { key: KEY, blocks: BLOCKS });
  store = new FakeStore();
  files = new FaultyShare();
  troubles.length = 0;
  hashed.clear();
});
afterEach(() => rm(sharedDir, { recursive: true }));

function writing(options: Partial<RestFileOptions> = {}): RestFile {
  const logger = createLogger({
    role: "source",
    level: "info",
    stream: { write: () => undefined },
  });
  const onTrouble = (error: PageFileError): void => {
    troubles.push(error);
  };
  return new RestFile({ ...{ place, store, hashes, logger, onTrouble, files }, ...options });
}

/** Of what is in the file: page by its number in the file, and the first byte of it. */
async function content(): Promise<Map<number, number>> {
  const reader = await PageFileReader.open(place.path, place.subject, place);
  await reader.refresh();
  const found = new Map<number, number>();
  for (let page = 0; page < 1010; page++) {
    const bytes = await reader.read(page);
    if (bytes !== null) found.set(page, bytes === "zero" ? -1 : bytes[17]!);
  }
  expect(reader.state.phase).toBe("complete");
  await reader.close();
  return found;
}

function wanted(): Map<number, number> {
  const found = new Map<number, number>();
  for (let page = 0; page < 1000; page += 3) found.set(page, page % 15 === 0 ? -1 : page & 0xff);
  for (let page = 0; page < 10; page++) found.set(1000 + page, page + 1);
  return found;
}

function errno(code: string): Error {
  const numbers: Record<string, number> = { ENOSPC: -28, EIO: -5 };
  return Object.assign(new Error(`${code}: injected`), { code, errno: numbers[code] });
}

describe("the rest of memory", () => {
  test("is on the share, all of it, and the file says so", async () => {
    const file = writing();
    await file.ended;
    expect(file.phase).toBe("complete");
    expect(await content()).toEqual(wanted());
    expect(troubles).toEqual([]);
  });

  test("counts for the digest as it was written: the dest will not ask for it any more", async () => {
    await writing().ended;
    expect(hashed).toEqual(wanted());
  });

  test("is not written again where an earlier life has written all of it", async () => {
    await writing().ended;
    store.reads = 0;
    const again = writing();
    await again.ended;
    expect([again.phase, store.reads]).toEqual(["complete", 0]);
  });

  test("takes the place of what an earlier life had begun", async () => {
    files.onSync = () => (store.reads > 0 ? Promise.reject(errno("EIO")) : Promise.resolve());
    await writing().ended;
    files.onSync = () => Promise.resolve();
    await writing().ended;
    expect(await content()).toEqual(wanted());
  });

  test("takes the place of a file that somebody else has put there", async () => {
    await writing().ended;
    await writeFile(place.path, "no page file at all");
    await writing().ended;
    expect(await content()).toEqual(wanted());
  });

  test("lies where nobody reads it who has not the key", async () => {
    await writing().ended;
    const handle = await open(place.path);
    const bytes = await handle.readFile();
    await handle.close();
    expect(bytes.includes(Buffer.alloc(64, 3))).toBe(false);
    expect(bytes.includes(Buffer.from(KEY.key, "hex"))).toBe(false);
    expect(bytes.includes(Buffer.from(KEY.key))).toBe(false);
  });
});

describe("a share that is no help", () => {
  test.each([
    ["ENOSPC", "page-file-full"],
    ["EIO", "page-file-failed"],
  ])("is told once: %s is %s", async (code, told) => {
    files.onWrite = () => (store.reads > 0 ? Promise.reject(errno(code)) : Promise.resolve());
    const file = writing();
    await file.ended;
    expect(file.phase).toBe("failed");
    expect(troubles.map((error) => error.code)).toEqual([told]);
  });

  test("that hangs is told as unreachable, and not waited for at the end", async () => {
    const hang = new Deferred();
    files.onWrite = () => (store.reads > 0 ? hang.promise : Promise.resolve());
    const file = writing({ timeoutMs: 50 });
    await file.ended;
    expect(troubles.map((error) => error.code)).toEqual(["page-file-unreachable"]);
    await file.stop();
    hang.resolve();
  });

  test("that is not there is told", async () => {
    await rm(sharedDir, { recursive: true });
    const file = writing();
    await file.ended;
    expect(troubles.map((error) => error.code)).toEqual(["page-file-failed"]);
    await mkdir(sharedDir);
  });

  test("is not blamed for a store that cannot be read", async () => {
    store.isBroken = true;
    const file = writing();
    await file.ended;
    expect([file.phase, troubles]).toEqual(["failed", []]);
  });
});

describe("the end of the hand-over", () => {
  test("ends the writing in its middle, without a word about it", async () => {
    const [hangs, goesOn] = [new Deferred(), new Deferred()];
    files.onWrite = () => {
      if (store.reads === 0) return Promise.resolve();
      hangs.resolve();
      return goesOn.promise;
    };
    const file = writing();
    await hangs.promise;
    await file.stop();
    const { reads } = store;
    goesOn.resolve();
    await file.ended;
    expect([file.phase, store.reads, troubles]).toEqual(["stopped", reads, []]);
  });

  test("that comes before the file was made leaves none", async () => {
    const file = writing();
    await file.stop();
    await file.ended;
    expect(await readdir(dirname(place.path)).catch(() => [])).toEqual([]);
  });
});
