import { describe, expect, test } from "vitest";
import { beginsAttempt, decodeRecord, encodeRecord, isSettled } from "./journal-record.ts";
import type { JournalRecord } from "./journal-record.ts";
import { destRecords, sourceRecords } from "./sample-records.ts";

const kept: JournalRecord = { ...sourceRecords[0]!, kind: "kept", peerIncarnation: null };
const both = [
  ["source", kept] as const,
  ...sourceRecords.map((record) => ["source", record] as const),
  ...destRecords.map((record) => ["dest", record] as const),
];
const [begin, handedOff] = sourceRecords as [JournalRecord, JournalRecord];
const [reserved] = destRecords as [JournalRecord];

/** The payload of `record` changed: what another program might have written. */
function decodeFields(record: JournalRecord, change: object): unknown {
  const encoded = encodeRecord("source", record);
  const fields = { ...(JSON.parse(encoded.payload.toString()) as object), ...change };
  return decodeRecord("source", { ...encoded, payload: Buffer.from(JSON.stringify(fields)) });
}

describe("the records of a journal", () => {
  test.each(both)("are read as they were written: %s %o", (role, record) => {
    expect(decodeRecord(role, encodeRecord(role, record))).toEqual(record);
  });

  test("keep their numbers for ever", () => {
    const numbers = both.map(([role, record]) => [record.kind, encodeRecord(role, record).type]);
    expect(Object.fromEntries(numbers)).toEqual({
      begin: 1,
      "handed-off": 2,
      released: 3,
      reclaimed: 4,
      done: 5,
      kept: 6,
      reserved: 17,
      prepared: 18,
      taken: 19,
      complete: 20,
      refused: 21,
    });
  });

  test("have one form, whatever the order of their fields", () => {
    const reversed = Object.fromEntries(Object.entries(begin).toReversed());
    const encoded = encodeRecord("source", reversed as unknown as JournalRecord);
    expect(encoded).toEqual(encodeRecord("source", begin));
    expect(encoded.payload.toString()).toBe(
      '{"migrationId":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","epoch":2,"generation":1,' +
        '"peer":"host-b","peerIncarnation":null}',
    );
  });

  test("are those of one side", () => {
    expect(() => encodeRecord("source", reserved)).toThrow("the source writes no record reserved");
    expect(() => encodeRecord("dest", begin)).toThrow("the dest writes no record begin");
    expect(decodeRecord("source", encodeRecord("dest", reserved))).toBeNull();
    expect(decodeRecord("dest", encodeRecord("source", begin))).toBeNull();
  });

  test("are none of another version, or of another number", () => {
    const encoded = encodeRecord("source", begin);
    for (const version of [0, 2, 255]) {
      expect(decodeRecord("source", { ...encoded, version })).toBeNull();
    }
    for (const type of [0, 2, 7, 17, 255]) {
      expect(decodeRecord("source", { ...encoded, type })).toBeNull();
    }
  });

  test("have the version in which they came to be", () => {
    const witnessed = { ...handedOff, witness: true } as JournalRecord;
    const versions = [begin, handedOff, kept, witnessed].map((r) => encodeRecord("source", r));
    expect(versions.map(({ version }) => version)).toEqual([1, 1, 2, 2]);
    expect(decodeRecord("source", versions[3]!)).toEqual(witnessed);
    expect(decodeRecord("source", { ...versions[3]!, version: 1 })).toBeNull();
    expect(decodeRecord("source", { ...versions[2]!, version: 1 })).toBeNull();
  });

  test.each([
    ["an id with a blank", { migrationId: "a b" }],
    ["an empty id", { migrationId: "" }],
    ["a long id", { migrationId: "x".repeat(65) }],
    ["no id", { migrationId: undefined }],
    ["a broken epoch", { epoch: 1.5 }],
    ["a negative epoch", { epoch: -1 }],
    ["an epoch beyond what is exact", { epoch: 2 ** 53 }],
    ["an epoch that is text", { epoch: "2" }],
    ["no generation", { generation: null }],
    ["a peer that is a path", { peer: "../b" }],
    ["no incarnation", { peerIncarnation: null }],
    ["a digest in capitals", { digest: "F".repeat(64) }],
    ["a digest of nothing", { digest: "" }],
    ["a digest of too many disks", { digest: Array(26).fill("f".repeat(64)).join(":") }],
    ["a field more", { more: 1 }],
  ])("are refused with %s, in both directions", (_what, change) => {
    const wrong = { ...handedOff, ...change } as JournalRecord;
    expect(() => encodeRecord("source", wrong)).toThrow("invariant broken");
    expect(decodeFields(handedOff, change)).toBeNull();
  });

  test("hold the digests of as many disks as a guest may have", () => {
    const digest = Array(25).fill("f".repeat(64)).join(":");
    const record = { ...handedOff, digest } as JournalRecord;
    expect(decodeRecord("source", encodeRecord("source", record))).toEqual(record);
  });

  test.each([
    ["nothing", ""],
    ["no JSON", "{"],
    ["null", "null"],
    ["a list", "[]"],
    ["text", '"begin"'],
    ["an object without fields", "{}"],
    ["another prototype", '{"__proto__":{"epoch":1}}'],
    ["a kind of its own", JSON.stringify({ ...begin })],
    ["lists in lists", "[".repeat(60_000)],
  ])("are none where the payload is %s", (_what, text) => {
    const payload = Buffer.from(text);
    expect(decodeRecord("source", { version: 1, type: 1, payload })).toBeNull();
  });

  test("are none where the payload is not UTF-8, or begins with a mark of it", () => {
    const { payload, ...rest } = encodeRecord("source", begin);
    for (const more of [[0xff], [0xef, 0xbb, 0xbf]]) {
      const broken = Buffer.concat([Buffer.from(more), payload]);
      expect(decodeRecord("source", { ...rest, payload: broken })).toBeNull();
    }
  });
});

test("a journal may be rewritten when its last record leaves nothing in doubt", () => {
  const settled = both.filter(([, record]) => isSettled(record)).map(([, { kind }]) => kind);
  expect(new Set(settled)).toEqual(
    new Set(["begin", "kept", "reclaimed", "done", "refused", "complete"]),
  );
  const begins = both.filter(([, record]) => beginsAttempt(record)).map(([, { kind }]) => kind);
  expect(new Set(begins)).toEqual(new Set(["begin", "reserved"]));
});
