/* Journals, whole and broken in every way: SEED= replays the random ones. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { messageOf, type ErrorDetail } from "@vmferry/core";
import {
  encodeFrame,
  encodeHeader,
  frameCrc,
  HEADER_BYTES,
  PAYLOAD_BYTES_MAX,
  RECORD_HEAD_BYTES,
  type JournalIdentity,
} from "./journal-codec.ts";
import { JournalError } from "./journal-error.ts";
import { encodeRecord, type EncodedRecord, type JournalRecord } from "./journal-record.ts";
import { readJournal, type JournalReading } from "./read-journal.ts";
import {
  DEST_INCARNATION,
  destIdentity,
  destRecords,
  newerDestRecords,
  newerSourceRecords,
  SOURCE_INCARNATION,
  sourceIdentity,
  sourceRecords,
} from "./sample-records.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const PATH = "/journal";
const fixture = (name: string): Buffer => readFileSync(join(import.meta.dirname, "fixtures", name));
const V1_SOURCE = fixture("v1.journal");
const V1_DEST = fixture("v1-dest.journal");

interface Written {
  readonly bytes: Buffer;
  readonly header: Buffer;
  readonly frames: readonly Buffer[];
}

function write(identity: JournalIdentity, incarnation: string, records: EncodedRecord[]): Written {
  const header = encodeHeader({ ...identity, incarnation, firstSeq: 1 });
  let prevCrc = header.readUInt32BE(HEADER_BYTES - 4);
  const frames = records.map((record, index) => {
    const frame = encodeFrame(record, { seq: index + 1, prevCrc });
    prevCrc = frameCrc(frame);
    return frame;
  });
  return { bytes: Buffer.concat([header, ...frames]), header, frames };
}

function writeSource(records: readonly JournalRecord[] = sourceRecords): Written {
  const encoded = records.map((record) => encodeRecord("source", record));
  return write(sourceIdentity, SOURCE_INCARNATION, encoded);
}

function read(bytes: Buffer): JournalReading<"source"> {
  return readJournal(bytes, sourceIdentity, PATH);
}

function refusalOf(bytes: Buffer, identity: JournalIdentity = sourceIdentity): ErrorDetail {
  try {
    readJournal(bytes, identity, PATH);
  } catch (error) {
    if (error instanceof JournalError) return error.detail;
    throw error;
  }
  throw new Error("it was not refused");
}

const damaged = { code: "journal-damaged", path: PATH };
const damagedBy = (reason: string): ErrorDetail & { readonly reason: string } => ({
  ...damaged,
  reason,
});
const { bytes: whole, header, frames } = writeSource();
/** Where each record ends, and the header. */
const ends = frames.reduce<number[]>(
  (all, { length }) => [...all, all.at(-1)! + length],
  [HEADER_BYTES],
);

describe("a journal of version 2", () => {
  const source = newerSourceRecords.map((record) => encodeRecord("source", record));
  const dest = newerDestRecords.map((record) => encodeRecord("dest", record));

  test("is read for ever, on both sides", () => {
    expect(read(fixture("v2.journal"))).toMatchObject({
      ...{ incarnation: SOURCE_INCARNATION, records: newerSourceRecords, tornBytes: 0 },
    });
    expect(readJournal(fixture("v2-dest.journal"), destIdentity, PATH)).toMatchObject({
      ...{ incarnation: DEST_INCARNATION, records: newerDestRecords, tornBytes: 0 },
    });
  });

  test("is what this version writes", () => {
    const written = write(sourceIdentity, SOURCE_INCARNATION, source).bytes;
    expect(written).toEqual(fixture("v2.journal"));
    expect(write(destIdentity, DEST_INCARNATION, dest).bytes).toEqual(fixture("v2-dest.journal"));
  });
});

describe("a journal of version 1", () => {
  test("is read for ever, at the source", () => {
    expect(read(V1_SOURCE)).toMatchObject({
      incarnation: SOURCE_INCARNATION,
      records: sourceRecords,
      lastAt: ends[6],
      endBytes: V1_SOURCE.length,
      next: { seq: 8 },
      tornBytes: 0,
    });
  });

  test("is read for ever, at the dest", () => {
    expect(readJournal(V1_DEST, destIdentity, PATH)).toMatchObject({
      incarnation: DEST_INCARNATION,
      records: destRecords,
      tornBytes: 0,
    });
  });

  test("is what this version writes, as long as it has nothing newer to say", () => {
    expect(whole).toEqual(V1_SOURCE);
    const encoded = destRecords.map((record) => encodeRecord("dest", record));
    expect(write(destIdentity, DEST_INCARNATION, encoded).bytes).toEqual(V1_DEST);
  });

  test("is refused where a later version wrote a part of it, and not taken for a damaged one", () => {
    const newer = { code: "journal-too-new", path: PATH, version: 3 };
    const layout = Buffer.from(whole);
    layout.writeUInt32BE(3, 8);
    expect(refusalOf(layout)).toEqual(newer);
    const [first] = sourceRecords.map((record) => encodeRecord("source", record));
    const record = { version: 3, type: 99, payload: Buffer.from("anything") };
    const { bytes } = write(sourceIdentity, SOURCE_INCARNATION, [first!, record]);
    expect(refusalOf(bytes)).toEqual(newer);
  });

  test("is refused where a record is none that this version knows", () => {
    const [first] = sourceRecords.map((record) => encodeRecord("source", record));
    for (const wrong of [
      { ...first!, type: 99 },
      { ...first!, version: 0 },
      { ...first!, payload: Buffer.from("{}") },
      encodeRecord("dest", destRecords[0]!),
    ]) {
      const { bytes } = write(sourceIdentity, SOURCE_INCARNATION, [first!, wrong]);
      expect(refusalOf(bytes)).toEqual(damagedBy("record 2 is none of the known ones"));
    }
  });
});

describe("a journal that was cut off", () => {
  test("has the records that are whole, at every length", () => {
    for (let length = HEADER_BYTES; length <= whole.length; length++) {
      const count = ends.filter((end) => end <= length).length - 1;
      const reading = read(whole.subarray(0, length));
      expect(reading.records, `${length} bytes`).toEqual(sourceRecords.slice(0, count));
      expect(reading).toMatchObject({
        endBytes: ends[count],
        lastAt: count === 0 ? 0 : ends[count - 1],
        tornBytes: length - ends[count]!,
        next: { seq: count + 1 },
      });
    }
  });

  test("is refused without its whole header, for it never was without", () => {
    for (let length = 0; length < HEADER_BYTES; length++) {
      expect(refusalOf(whole.subarray(0, length)), `${length} bytes`).toMatchObject(damaged);
    }
  });
});

describe("a journal that was damaged is refused", () => {
  test("at every flipped bit, in the last record as well", () => {
    const bytes = Buffer.from(whole);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      bytes[bit >>> 3]! ^= 1 << (bit & 7);
      expect(refusalOf(bytes).code, `bit ${bit}`).toMatch(/^journal-(damaged|too-new)$/);
      bytes[bit >>> 3]! ^= 1 << (bit & 7);
    }
  });

  test("where a sector reads as zeros that is not in the last record", () => {
    for (let from = 0; from < ends.at(-2)!; from += 512) {
      const bytes = Buffer.from(whole).fill(0, from, from + 512);
      expect(refusalOf(bytes), `from ${from}`).toMatchObject(damaged);
    }
  });

  test("without one of its records, with one twice, and with two in each other's place", () => {
    for (let index = 0; index < frames.length; index++) {
      const some = [...frames];
      const twice = some.toSpliced(index, 0, frames[index]!);
      expect(refusalOf(Buffer.concat([header, ...twice])), `${index} twice`).toMatchObject(damaged);
      if (index === frames.length - 1) continue;
      const removed = some.toSpliced(index, 1);
      expect(refusalOf(Buffer.concat([header, ...removed])), `no ${index}`).toMatchObject(damaged);
      const swapped = some.toSpliced(index, 2, frames[index + 1]!, frames[index]!);
      expect(refusalOf(Buffer.concat([header, ...swapped])), `swap ${index}`).toMatchObject(
        damaged,
      );
    }
  });

  test("with a record of another journal that has the same number", () => {
    const other = writeSource([{ ...sourceRecords[0]!, epoch: 9 }, ...sourceRecords.slice(1)]);
    const mixed = Buffer.concat([header, other.frames[0]!, ...frames.slice(1)]);
    expect(refusalOf(mixed)).toEqual(damagedBy("record 2 does not follow on record 1"));
    const later = Buffer.concat([header, ...frames.slice(0, 6), other.frames[6]!]);
    expect(refusalOf(later)).toMatchObject(damaged);
  });

  test("with numbers that leave one out or begin with another, although the chain is whole", () => {
    const record = encodeRecord("source", sourceRecords[0]!);
    const prevCrc = header.readUInt32BE(HEADER_BYTES - 4);
    const second = encodeFrame(record, { seq: 2, prevCrc });
    expect(refusalOf(Buffer.concat([header, second]))).toEqual(
      damagedBy("record 2 does not follow on record 0"),
    );
    const third = encodeFrame(record, { seq: 3, prevCrc: frameCrc(frames[0]!) });
    expect(refusalOf(Buffer.concat([header, frames[0]!, third]))).toEqual(
      damagedBy("record 3 does not follow on record 1"),
    );
  });

  test.each([0, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX + 1, 2 ** 31, 2 ** 32 - 1])(
    "where a length says %d",
    (length) => {
      for (const at of ends.slice(0, -1)) {
        const bytes = Buffer.from(whole);
        bytes.writeUInt32BE(length, at + 4);
        expect(refusalOf(bytes), `at ${at}`).toMatchObject(damaged);
      }
    },
  );

  test("with something behind it that no append wrote", () => {
    for (const more of [
      Buffer.alloc(RECORD_HEAD_BYTES + PAYLOAD_BYTES_MAX + 1),
      Buffer.alloc(RECORD_HEAD_BYTES, 0xff),
      whole,
      V1_DEST,
    ]) {
      expect(refusalOf(Buffer.concat([whole, more]))).toMatchObject(damaged);
    }
  });

  test.each<[string, Partial<JournalIdentity>]>([
    ["guest", { guest: "web2" }],
    ["guest that had the name before", { uuid: "6ba7b811-9dad-41d1-80b4-00c04fd430c8" }],
    ["side", { role: "dest" }],
  ])("where it is that of another %s, with both named", (_which, change) => {
    expect(() => readJournal(whole, { ...sourceIdentity, ...change }, PATH)).toThrow(
      "it is that of guest web1 (6ba7b810-9dad-41d1-80b4-00c04fd430c8) at the source, not of",
    );
  });
});

const anyId = fc.stringMatching(/^[0-9a-zA-Z-]{1,64}$/);
const anyRecord: fc.Arbitrary<JournalRecord> = fc
  .record({
    sample: fc.constantFrom(...sourceRecords),
    migrationId: anyId,
    epoch: fc.maxSafeNat(),
    generation: fc.maxSafeNat(),
    peer: fc.stringMatching(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$/),
  })
  .map(({ sample, ...fields }) => ({ ...sample, ...fields }));
const anyJournal = fc.array(anyRecord, { maxLength: 6 }).map((records) => ({
  records,
  ...writeSource(records),
}));

/** The records that are read, or null where the journal is refused. */
function recordsIn(bytes: Buffer): readonly JournalRecord[] | null {
  try {
    return read(bytes).records;
  } catch (error) {
    if (error instanceof JournalError) return null;
    throw new Error(`no way to refuse a journal: ${messageOf(error)}`, { cause: error });
  }
}

describe(`random journals (SEED=${seed})`, () => {
  test("are read as they were written", () => {
    fc.assert(
      fc.property(anyJournal, ({ bytes, records }) => {
        expect(recordsIn(bytes)).toEqual(records);
      }),
      { seed },
    );
  });

  test("are refused with any of their bytes changed to others, or not changed at all", () => {
    const change = fc.uint8Array({ minLength: 1, maxLength: 40 }).map((bytes) =>
      // Zeros could be a sector that was not written.
      bytes.map((byte) => byte || 1),
    );
    fc.assert(
      fc.property(anyJournal, change, fc.nat(), ({ bytes }, changed, position) => {
        const broken = Buffer.from(bytes);
        const at = position % bytes.length;
        broken.set(changed.subarray(0, bytes.length - at), at);
        expect(recordsIn(broken) === null).toBe(!broken.equals(bytes));
      }),
      { seed, numRuns: 2000 },
    );
  });

  test("never say anything but a beginning of what was written, whatever was done to them", () => {
    const edits = fc.array(
      fc.record({
        at: fc.nat(),
        removed: fc.nat({ max: 600 }),
        inserted: fc.oneof(
          fc.uint8Array({ maxLength: 600 }),
          fc.nat({ max: 1200 }).map((length) => new Uint8Array(length)),
        ),
      }),
      { minLength: 1, maxLength: 3 },
    );
    fc.assert(
      fc.property(anyJournal, edits, ({ bytes, records }, all) => {
        let broken = bytes;
        for (const { at, removed, inserted } of all) {
          const from = at % (broken.length + 1);
          const rest = broken.subarray(from + removed);
          broken = Buffer.concat([broken.subarray(0, from), inserted, rest]);
        }
        const found = recordsIn(broken);
        if (found !== null) expect(found).toEqual(records.slice(0, found.length));
      }),
      { seed, numRuns: 2000 },
    );
  });

  test("that are noise are refused", () => {
    const noise = fc.uint8Array({ maxLength: 3000, size: "max" });
    fc.assert(
      fc.property(noise, fc.boolean(), (bytes, withHeader) => {
        const all = withHeader ? Buffer.concat([header, bytes]) : Buffer.from(bytes);
        expect(recordsIn(all) ?? []).toEqual([]);
      }),
      { seed, numRuns: 1000 },
    );
  });
});
