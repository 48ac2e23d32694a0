/**
 * The index of a store of pages, by which an agent that starts anew knows what is in it. Big-endian:
 *
 *   8 bytes  "vmfpages"
 *   u32      version, 1
 *   u32      bytes of the header, JSON: migrationId, epoch, blocks [{ name, lengthBytes }]
 *   …        header
 *   2 ×      u32 count of runs, then each u16 block, u32 first page, u32 pages: what is stored, and
 *            which of that is zeros; ascending, no page twice
 *   u32      CRC32C over everything before
 */
import { crc32c } from "@node-rs/crc32";
import { AgentError, ByteReader } from "@vmferry/core";
import { limits } from "@vmferry/protocol";
import { Type } from "typebox";
import { Value } from "typebox/value";
import { PageSet } from "./page-set.ts";

const MAGIC = "vmfpages";
const VERSION = 1;
const HEADER_BYTES_MAX = 256 * 1024;
const RUN_BYTES = 10;
const RUN_PAGES_MAX = 2 ** 31;

const HeaderSchema = Type.Object(
  {
    migrationId: Type.String({ pattern: "^[0-9a-zA-Z-]{1,64}$" }),
    epoch: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    blocks: Type.Array(
      Type.Object(
        {
          name: Type.String({ minLength: 1, maxLength: 255 }),
          lengthBytes: Type.Integer({
            minimum: limits.PAGE_BYTES,
            maximum: limits.RAM_BYTES_MAX,
            multipleOf: limits.PAGE_BYTES,
          }),
        },
        { additionalProperties: false },
      ),
      { minItems: 1, maxItems: limits.RAM_BLOCKS_MAX },
    ),
  },
  { additionalProperties: false },
);

export class StoreIndexError extends AgentError<{
  readonly code: "store-index-invalid";
  readonly reason: string;
}> {}

export interface StoreIndex {
  readonly migrationId: string;
  readonly epoch: number;
  readonly blocks: readonly { readonly name: string; readonly lengthBytes: number }[];
  readonly pages: PageSet;
  /** Part of `pages`. */
  readonly zeros: PageSet;
}

export function encodeStoreIndex({ migrationId, epoch, blocks, pages, zeros }: StoreIndex): Buffer {
  const plain = blocks.map(({ name, lengthBytes }) => ({ name, lengthBytes }));
  const header = Buffer.from(JSON.stringify({ migrationId, epoch, blocks: plain }));
  const head = Buffer.alloc(16);
  head.write(MAGIC, "latin1");
  head.writeUInt32BE(VERSION, 8);
  head.writeUInt32BE(header.length, 12);
  const body = Buffer.concat([head, header, encodeRuns(pages), encodeRuns(zeros, pages)]);
  const crc = Buffer.alloc(4);
  crc.writeUInt32BE(crc32c(body), 0);
  return Buffer.concat([body, crc]);
}

/** Throws `store-index-invalid`, whatever the bytes are. */
export function decodeStoreIndex(bytes: Buffer): StoreIndex {
  try {
    return decode(bytes);
  } catch (cause) {
    if (cause instanceof StoreIndexError) throw cause;
    throw invalid(cause instanceof Error ? cause.message : "unreadable", cause);
  }
}

function decode(bytes: Buffer): StoreIndex {
  if (bytes.length < 20) throw invalid("too short");
  const body = bytes.subarray(0, bytes.length - 4);
  if (crc32c(body) !== bytes.readUInt32BE(body.length)) throw invalid("checksum");
  const reader = new ByteReader(body);
  if (Buffer.from(reader.bytes("magic", 8)).toString("latin1") !== MAGIC) throw invalid("magic");
  if (reader.u32("version") !== VERSION) throw invalid("version");
  const headerBytes = reader.u32("header length");
  if (headerBytes > HEADER_BYTES_MAX) throw invalid("header length");
  const header: unknown = JSON.parse(
    Buffer.from(reader.bytes("header", headerBytes)).toString("utf8"),
  );
  if (!Value.Check(HeaderSchema, header)) throw invalid("header");
  const totalBytes = header.blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  if (totalBytes > limits.RAM_BYTES_MAX) throw invalid("more RAM than a guest may have");
  const pages = decodeRuns(reader, new PageSet(header.blocks));
  const zeros = decodeRuns(reader, new PageSet(header.blocks));
  if (reader.remaining > 0) throw invalid("bytes behind its end");
  return { ...header, pages, zeros };
}

/** Of the pages that are in `within` as well, where it is given. */
function encodeRuns(set: PageSet, within: PageSet = set): Buffer {
  const runs = [...splitRuns(set, within)];
  const out = Buffer.alloc(4 + runs.length * RUN_BYTES);
  let at = out.writeUInt32BE(runs.length, 0);
  for (const { block, first, count } of runs) {
    at = out.writeUInt16BE(block, at);
    at = out.writeUInt32BE(first, at);
    at = out.writeUInt32BE(count, at);
  }
  return out;
}

function* splitRuns(
  set: PageSet,
  within: PageSet,
): Generator<{ block: number; first: number; count: number }> {
  for (const run of set.runs(RUN_PAGES_MAX)) {
    if (within === set) {
      yield run;
      continue;
    }
    const end = run.first + run.count;
    let first = run.first;
    while (first < end) {
      const found = within.next(run.block, first, end - first);
      if (found === null || found.block !== run.block || found.first >= end) break;
      const count = Math.min(found.count, end - found.first);
      yield { block: run.block, first: found.first, count };
      first = found.first + count;
    }
  }
}

function decodeRuns(reader: ByteReader, set: PageSet): PageSet {
  const count = reader.u32("run count");
  if (count * RUN_BYTES > reader.remaining) throw invalid("run count");
  for (let each = 0; each < count; each++) {
    const run = {
      block: reader.u16("block"),
      first: reader.u32("first page"),
      count: reader.u32("pages"),
    };
    if (!set.covers(run)) throw invalid("run outside its block");
    for (let page = run.first; page < run.first + run.count; page++) {
      if (!set.add(run.block, page)) throw invalid("a page twice");
    }
  }
  return set;
}

function invalid(reason: string, cause?: unknown): StoreIndexError {
  return new StoreIndexError(
    `the index of a store of pages is not usable: ${reason}`,
    { code: "store-index-invalid", reason },
    { cause },
  );
}
