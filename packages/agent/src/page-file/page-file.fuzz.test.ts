/*
 * Bytes that nobody wrote, and lies of somebody who has the key: FUZZ= says how many inputs each
 * parser gets, SEED= replays a run.
 */
import { describe, expect, test, vi } from "vitest";
import { crc32 } from "node:zlib";
import { ManualClock } from "../events/manual-clock.ts";
import { FileSeal, TAG_BYTES } from "./file-seal.ts";
import { decodeHeader, encodeHeader, pagesOf, readHeaderStart } from "./header-codec.ts";
import { MemoryPageFiles } from "./memory-page-files.ts";
import { packPage, unpackPage } from "./page-codec.ts";
import { PageFileError } from "./page-file-error.ts";
import { BATCH_PAGES_MAX, PAGE_BYTES, RECORD_HEAD_BYTES } from "./page-file-limits.ts";
import { RecordChain } from "./record-chain.ts";
import { decodeHead, encodeHead, recordBytes, sealedIndexBytes } from "./record-codec.ts";
import {
  SAMPLE_SECRET,
  SAMPLE_SUBJECT,
  sampleFile,
  samplePage,
  sampleReader,
} from "./sample-page-file.ts";
import { SeededRandom } from "./seeded-random.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const INPUTS = Number(process.env["FUZZ"] ?? 10_000);
const LIES = [0, 1, 2, 15, 16, 17, 4095, 4096, 4097, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1] as const;

vi.setConfig({ testTimeout: 20_000 + INPUTS });

const random = new SeededRandom(seed);
const file = await sampleFile([[1, 2], [-40, 4, -7], [6]], { compress: true });
const pages = pagesOf(SAMPLE_SUBJECT.blocks);
const start = readHeaderStart(file);
const headerBytes = start !== null && "headerBytes" in start ? start.headerBytes : 0;
const header = decodeHeader(file.subarray(0, headerBytes - TAG_BYTES))!;
const seal = new FileSeal(SAMPLE_SECRET, header.salt);
const headerTag = file.subarray(headerBytes - TAG_BYTES, headerBytes);

/** Changes it in one to three places, in its length too. */
function mutated(bytes: Buffer): Buffer {
  let result = Buffer.from(bytes);
  for (let i = 1 + random.below(3); i > 0; i--) {
    const at = random.below(result.length);
    const rest = result.subarray(at);
    switch (random.below(7)) {
      case 0:
        result[at]! ^= 1 << random.below(8);
        break;
      case 1:
        random.bytes(1 + random.below(40)).copy(rest);
        break;
      case 2:
        if (rest.length >= 4) rest.writeUInt32BE(random.pick(LIES));
        break;
      case 3:
        result = Buffer.from(result.subarray(0, at));
        break;
      case 4:
        result = Buffer.concat([result.subarray(0, at), random.bytes(random.below(64)), rest]);
        break;
      case 5:
        result = Buffer.concat([result.subarray(0, at), rest.subarray(random.below(64))]);
        break;
      default:
        result.copy(result, random.below(result.length), at, at + random.below(200));
    }
    if (result.length === 0) return random.bytes(64);
  }
  return result;
}

function newChain(): RecordChain {
  return new RecordChain({ seal, scope: "missing", pages, headerBytes, headerTag });
}

/** What a reader does with a file's records, without waiting for any. */
function scan(bytes: Buffer, chain: RecordChain): void {
  for (;;) {
    const headBytes = bytes.subarray(chain.offset, chain.offset + RECORD_HEAD_BYTES);
    const head = decodeHead(headBytes);
    if (head === null) return;
    const end = chain.offset + recordBytes(head);
    if (end > bytes.length) return;
    if (chain.accept(head, headBytes, bytes.subarray(end - sealedIndexBytes(head), end)) !== null) {
      return;
    }
  }
}

/** Where the records of the file end, and how many pages are there then. */
const ends = new Map([[headerBytes, 0]]);
for (let at = headerBytes; at < file.length;) {
  at += recordBytes(decodeHead(file.subarray(at, at + RECORD_HEAD_BYTES))!);
  const chain = newChain();
  scan(file.subarray(0, at), chain);
  expect(chain.offset).toBe(at);
  ends.set(at, chain.dataPages + chain.zeroPages);
}

describe(`${INPUTS} inputs (SEED=${seed})`, () => {
  test("of a header are refused, or are one that could have been written", () => {
    const good = encodeHeader(header);
    let accepted = 0;
    for (let i = 0; i < INPUTS; i++) {
      const bytes = random.below(50) === 0 ? random.bytes(random.below(400)) : mutated(good);
      readHeaderStart(bytes);
      // Half of them with a good checksum, so that what is behind it is looked at too.
      if (random.below(2) === 0 && bytes.length > 20) {
        bytes.writeUInt32BE(crc32(bytes.subarray(0, -4)), bytes.length - 4);
      }
      const decoded = decodeHeader(bytes);
      if (decoded === null) continue;
      accepted++;
      if (!encodeHeader(decoded).equals(bytes)) expect.fail("a header has two forms");
    }
    expect(accepted).toBeGreaterThan(0);
  });

  test("of records give a beginning of what was written", () => {
    const counts = new Map<number, number>();
    for (let i = 0; i < INPUTS; i++) {
      const records = mutated(file.subarray(headerBytes));
      const chain = newChain();
      scan(Buffer.concat([file.subarray(0, headerBytes), records]), chain);
      if (ends.get(chain.offset) !== chain.dataPages + chain.zeroPages) {
        expect.fail(`${chain.offset} bytes are no beginning of it`);
      }
      counts.set(chain.offset, (counts.get(chain.offset) ?? 0) + 1);
    }
    expect([...counts.keys()].every((offset) => ends.has(offset))).toBe(true);
    expect(counts.size).toBeGreaterThan(2);
  });

  test("of an index that is sealed with the key are refused, or are within the guest", () => {
    let accepted = 0;
    for (let i = 0; i < INPUTS; i++) {
      const chain = newChain();
      for (let record = 0; record < 3; record++) {
        const { head, headBytes, sealed } = lie(chain.offset, record);
        const before = chain.dataPages + chain.zeroPages;
        const obstacle = chain.accept(head, headBytes, sealed);
        const after = chain.dataPages + chain.zeroPages;
        if (after > pages || (obstacle !== null && before !== after)) expect.fail("pages are lost");
        if (obstacle === null) accepted++;
        let there = 0;
        for (let page = 0; page < pages; page++) if (chain.locations.has(page)) there++;
        if (there !== after) expect.fail(`${there} pages are there, and ${after} are counted`);
        if (obstacle !== null) break;
      }
    }
    expect(accepted).toBeGreaterThan(0);
  });

  test("of a stored page are no page, or one", () => {
    const packed = [2, 4, 6].map((page) => packPage(samplePage(page)));
    for (let i = 0; i < INPUTS; i++) {
      const bytes = mutated(Buffer.from(random.pick(packed)));
      if (bytes.length < 16 || bytes.length > PAGE_BYTES) continue;
      const page = unpackPage(bytes);
      if (page !== null && page.length !== PAGE_BYTES) expect.fail("a page of another length");
    }
  });

  test("of a whole file are refused by a reader, which gives no other page", async () => {
    for (let i = 0; i < INPUTS / 20; i++) {
      const clock = new ManualClock();
      try {
        const reader = await sampleReader(new MemoryPageFiles(mutated(file)), { clock });
        await reader.refresh();
        clock.advance(60_000);
        await reader.refresh().catch(() => undefined);
        for (const page of [1, 2, 4, 6, 7, 40, 50]) {
          const content = await reader.read(page).catch(onlyPageFileErrors);
          if (content === null) continue;
          const isGood =
            content === "zero" ? [7, 40].includes(page) : content.equals(samplePage(page));
          if (!isGood) expect.fail(`page ${page} is not as it was written`);
        }
      } catch (error) {
        onlyPageFileErrors(error);
      }
    }
  });
});

function onlyPageFileErrors(error: unknown): null {
  if (error instanceof PageFileError) return null;
  throw error;
}

let previousTag = headerTag;

/** A record of somebody who has the key, and says what comes to mind. */
function lie(
  offset: number,
  sequence: number,
): { head: NonNullable<ReturnType<typeof decodeHead>>; headBytes: Buffer; sealed: Buffer } {
  if (sequence === 0) previousTag = headerTag;
  const isEnd = random.below(6) === 0;
  const entries = isEnd ? 0 : 1 + random.below(4);
  const body = isEnd ? random.bytes(64) : Buffer.alloc(Math.ceil((entries * 12) / 16) * 16);
  let dataBytes = 0;
  for (let i = 0; i < entries; i++) {
    const page = random.below(20) === 0 ? random.pick(LIES) : random.below(pages + 1);
    const isData = random.below(2) === 0;
    const stored = random.below(9) === 0 ? random.pick(LIES) : 16 * (1 + random.below(256));
    const count = random.below(9) === 0 ? random.pick(LIES) : random.below(5);
    body.writeUInt32BE(random.below(40) === 0 ? random.pick(LIES) : 0, i * 12);
    body.writeUInt32BE(page, i * 12 + 4);
    body.writeUInt32BE(isData ? stored : (count | (2 ** 31)) >>> 0, i * 12 + 8);
    if (isData) dataBytes += stored + TAG_BYTES;
  }
  if (random.below(30) === 0) body[random.below(body.length)]! ^= 1;
  const claimed = dataBytes <= 2 ** 22 && dataBytes % 16 === 0 ? dataBytes : 0;
  const syncedBytes = random.below(20) === 0 ? random.pick(LIES) : headerBytes;
  const kind = isEnd ? "complete" : "batch";
  const headBytes = Buffer.alloc(RECORD_HEAD_BYTES);
  encodeHead({ kind, sequence, syncedBytes, entries, dataBytes: claimed }, headBytes);
  const head = decodeHead(headBytes)!;
  const context = Buffer.concat([headBytes, previousTag]);
  const sealed = Buffer.alloc(body.length + TAG_BYTES);
  seal.seal({ purpose: "record", offset, context }, body, sealed, 0);
  previousTag = Buffer.from(sealed.subarray(-TAG_BYTES));
  return { head, headBytes, sealed };
}

test("a batch of more pages than are taken in at once is refused", () => {
  const many = BATCH_PAGES_MAX + 1;
  const chain = new RecordChain({ seal, scope: "missing", pages: many, headerBytes, headerTag });
  const headBytes = Buffer.alloc(RECORD_HEAD_BYTES);
  const head = { kind: "batch", sequence: 0, syncedBytes: 0, entries: 1, dataBytes: 0 } as const;
  encodeHead(head, headBytes);
  for (const count of [many, many - 1]) {
    const index = Buffer.alloc(16);
    index.writeUInt32BE((2 ** 31 + count) >>> 0, 8);
    const sealed = Buffer.alloc(32);
    const context = Buffer.concat([headBytes, headerTag]);
    seal.seal({ purpose: "record", offset: headerBytes, context }, index, sealed, 0);
    expect(chain.accept(head, headBytes, sealed) === null).toBe(count < many);
  }
});
