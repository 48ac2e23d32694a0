/** What somebody who has the key must not be able to say, either. */
import { describe, expect, test } from "vitest";
import { FileSeal, TAG_BYTES } from "./file-seal.ts";
import { PAGE_BYTES, RECORD_HEAD_BYTES } from "./page-file-limits.ts";
import { RecordChain } from "./record-chain.ts";
import { decodeHead, encodeHead, encodeMarkBody, type RecordHead } from "./record-codec.ts";

const HEADER_BYTES = 208;
const ZERO_RUN = 2 ** 31;
const seal = new FileSeal(Buffer.alloc(32, 1), Buffer.alloc(32, 2));
const headerTag = Buffer.alloc(TAG_BYTES, 3);

function newChain(scope: "missing" | "whole" = "missing"): RecordChain {
  return new RecordChain({ seal, scope, pages: 100, headerBytes: HEADER_BYTES, headerTag });
}

interface Lie {
  readonly chain: RecordChain;
  readonly body: Buffer;
  readonly head: Partial<RecordHead>;
  readonly previousTag?: Buffer;
}

/** Seals the record for the place that the chain expects; what it says of it, and the tag. */
function offer({ chain, body, head, previousTag = headerTag }: Lie): {
  said: string | null;
  tag: Buffer;
} {
  const whole: RecordHead = {
    kind: "batch",
    sequence: 0,
    syncedBytes: HEADER_BYTES,
    entries: 1,
    dataBytes: 0,
    ...head,
  };
  const headBytes = Buffer.alloc(RECORD_HEAD_BYTES);
  encodeHead(whole, headBytes);
  const sealed = Buffer.alloc(body.length + TAG_BYTES);
  const context = Buffer.concat([headBytes, previousTag]);
  seal.seal({ purpose: "record", offset: chain.offset, context }, body, sealed, 0);
  const said = chain.accept(decodeHead(headBytes)!, headBytes, sealed);
  return { said, tag: sealed.subarray(-TAG_BYTES) };
}

/** An index of entries, each a page and a word. */
function index(...entries: readonly (readonly [number, number])[]): Buffer {
  const bytes = Buffer.alloc(Math.ceil((entries.length * 12) / 16) * 16);
  for (const [i, [page, word]] of entries.entries()) {
    bytes.writeBigUInt64BE(BigInt(page), i * 12);
    bytes.writeUInt32BE(word, i * 12 + 8);
  }
  return bytes;
}

describe("a batch", () => {
  const cannotBe = "a batch has an index that no batch can have";

  test("that is as it must be is taken", () => {
    const chain = newChain();
    const body = index([99, PAGE_BYTES], [0, ZERO_RUN + 99]);
    const head = { entries: 2, dataBytes: PAGE_BYTES + TAG_BYTES };
    expect(offer({ chain, body, head }).said).toBeNull();
    expect([chain.dataPages, chain.zeroPages]).toEqual([1, 99]);
    expect(chain.locations.find(99)).toEqual({ offset: HEADER_BYTES + 32, storedBytes: 4096 });
  });

  test.each([
    ["of no zero pages", [0, ZERO_RUN], 0],
    ["of pages behind the last", [99, ZERO_RUN + 2], 0],
    ["of a page behind the last", [100, 4096], 4112],
    ["of a page that no number can be", [2 ** 53 - 1, 4096], 4112],
    ["of a page of no bytes", [1, 0], 16],
    ["of a page longer than one", [1, 4112], 4128],
    ["of a page of odd length", [1, 4080 + 8], 4112],
    ["of more data than there is", [1, 4096], 4096],
    ["of less data than there is", [1, 4080], 4112],
    ["of a zero page with data", [1, ZERO_RUN + 1], 16],
  ] as const)("%s is refused", (_what, entry, dataBytes) => {
    const chain = newChain();
    expect(offer({ chain, body: index(entry), head: { dataBytes } }).said).toBe(cannotBe);
    expect(chain.offset).toBe(HEADER_BYTES);
  });

  test("with something in its padding is refused", () => {
    const body = index([0, ZERO_RUN + 1]);
    body[15] = 1;
    expect(offer({ chain: newChain(), body, head: {} }).said).toBe(cannotBe);
  });

  test.each([
    ["twice", [5, ZERO_RUN + 1]],
    ["again as a zero page", [3, ZERO_RUN + 10]],
    ["again with data", [5, 4096]],
  ] as const)("with a page that comes %s is refused as a whole", (_what, again) => {
    const chain = newChain();
    const first = offer({ chain, body: index([5, ZERO_RUN + 1]), head: {} });
    expect(first.said).toBeNull();
    const dataBytes = again[1] === 4096 ? 4112 : 0;
    const head = { sequence: 1, entries: 2, dataBytes };
    const body = index([20, ZERO_RUN + 2], again);
    expect(offer({ chain, body, head, previousTag: first.tag }).said).toBe("a page comes twice");
    const there = Array.from({ length: 100 }, (_, page) => page).filter((page) =>
      chain.locations.has(page),
    );
    expect(there).toEqual([5]);
    expect(chain.zeroPages).toBe(1);
  });

  test("with a page twice in itself is refused", () => {
    const chain = newChain();
    const body = index([20, ZERO_RUN + 2], [21, ZERO_RUN + 1]);
    expect(offer({ chain, body, head: { entries: 2 } }).said).toBe("a page comes twice");
    expect(chain.locations.has(20)).toBe(false);
  });

  test("that says more is synced than there is, or less than before, is refused", () => {
    const untrue = "a record says that what is not there is durable";
    const body = index([5, ZERO_RUN + 1]);
    const chain = newChain();
    const beyond = { syncedBytes: HEADER_BYTES + 1 };
    expect(offer({ chain, body, head: beyond }).said).toBe(untrue);
    const { said, tag } = offer({ chain, body, head: {} });
    expect(said).toBeNull();
    const less = { sequence: 1, syncedBytes: HEADER_BYTES - 1 };
    const second = index([6, ZERO_RUN + 1]);
    expect(offer({ chain, body: second, head: less, previousTag: tag }).said).toBe(untrue);
  });

  test("of another number, or behind another record, is refused", () => {
    const body = index([5, ZERO_RUN + 1]);
    const head = { sequence: 1 };
    expect(offer({ chain: newChain(), body, head }).said).toBe("it is not the next record");
    const previousTag = Buffer.alloc(TAG_BYTES);
    expect(offer({ chain: newChain(), body, head: {}, previousTag }).said).toBe(
      "a record is not as its writer sealed it",
    );
  });
});

describe("a complete-mark", () => {
  /** Of a file with one zero page. */
  function end(change: object, scope: "missing" | "whole" = "missing"): string | null {
    const chain = newChain(scope);
    const { tag } = offer({ chain, body: index([5, ZERO_RUN + 1]), head: {} });
    const mark = {
      batches: 1,
      dataPages: 0,
      zeroPages: 1,
      contentBytes: chain.offset,
      digest: DIGEST,
      ...change,
    };
    const head = { kind: "complete", sequence: 1, entries: 0 } as const;
    const { said } = offer({ chain, body: encodeMarkBody(mark), head, previousTag: tag });
    if (said === null) {
      expect(chain.mark).toEqual(mark);
      const further = offer({ chain, body: index([6, ZERO_RUN + 1]), head: { sequence: 2 } });
      expect(further.said).toBe("there is something behind the complete-mark");
    }
    return said;
  }

  // SHA-256 over the two tags.
  const DIGEST = "f0d1dd9745e673a9f08ffc8b865dbf1a1f80dd2570ea363ecf3b7535d5e83cf4";

  test("of what is there is taken, and is the last record", () => {
    expect(end({})).toBeNull();
  });

  test.each([
    { batches: 2 },
    { dataPages: 1 },
    { zeroPages: 0 },
    { contentBytes: 0 },
    { digest: "0".repeat(64) },
    { batches: Number.MAX_SAFE_INTEGER },
  ])("of another content is refused: %o", (change) => {
    expect(end(change)).toBe("the complete-mark speaks of another content");
  });

  test("of a whole guest is refused without every page", () => {
    expect(end({}, "whole")).toBe("not every page is there, and the complete-mark says so");
  });
});
