import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFile, copyFile, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FileStorage } from "./file-storage.ts";
import {
  encodeFrame,
  encodeHeader,
  frameCrc,
  HEADER_BYTES,
  JOURNAL_BYTES_MAX,
} from "./journal-codec.ts";
import { Journal } from "./journal-file.ts";
import { encodeRecord, type JournalRecordOf } from "./journal-record.ts";
import {
  destIdentity,
  destRecords,
  SOURCE_INCARNATION,
  sourceIdentity,
  sourceRecords,
} from "./sample-records.ts";
import { SimulatedStorage } from "./simulated-storage.ts";

type SourceRecord = JournalRecordOf<"source">;

const FIXTURE = join(import.meta.dirname, "fixtures", "v1.journal");
const [begin, handedOff, reclaimed] = sourceRecords as [SourceRecord, SourceRecord, SourceRecord];
const damaged = { code: "journal-damaged" };

let directory: string;
let path: string;
let journals: Journal<"source" | "dest">[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-journal-"));
  path = join(directory, "web1.journal");
  journals = [];
});
afterEach(async () => {
  for (const journal of journals) await journal.close();
  await rm(directory, { recursive: true });
});

async function open(): Promise<Journal<"source">> {
  const journal = await Journal.open({ path, identity: sourceIdentity });
  journals.push(journal);
  return journal;
}

async function appendAll(journal: Journal<"source">, records = sourceRecords): Promise<void> {
  for (const record of records) await journal.append(record);
}

describe("a journal", () => {
  test("begins empty, with an incarnation of its own", async () => {
    const journal = await open();
    expect(journal).toMatchObject({ path, isNew: true, failed: false, tornBytes: 0, last: null });
    expect(journal.records).toEqual([]);
    expect(journal.incarnation).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4/);
    const other = await Journal.open({ path: `${path}.2`, identity: sourceIdentity });
    expect(other.incarnation).not.toBe(journal.incarnation);
    await other.close();
  });

  test("holds what was appended, and has it when it is opened again", async () => {
    const journal = await open();
    for (const [index, record] of sourceRecords.entries()) {
      await journal.append(record);
      expect(journal.last).toEqual(record);
      expect(journal.records).toEqual(sourceRecords.slice(0, index + 1));
    }
    await journal.close();
    const again = await open();
    expect(again).toMatchObject({ incarnation: journal.incarnation, isNew: false, tornBytes: 0 });
    expect(again.records).toEqual(sourceRecords);
    await again.append(begin);
    await again.close();
    expect((await open()).records).toEqual([...sourceRecords, begin]);
  });

  test("writes the documented bytes", async () => {
    const newIncarnation = (): string => SOURCE_INCARNATION;
    const journal = await Journal.open({ path, identity: sourceIdentity, newIncarnation });
    await appendAll(journal);
    await journal.close();
    expect(await readFile(path)).toEqual(await readFile(FIXTURE));
  });

  test("goes on with one of version 1", async () => {
    await copyFile(FIXTURE, path);
    const journal = await open();
    expect(journal.incarnation).toBe(SOURCE_INCARNATION);
    expect(journal.records).toEqual(sourceRecords);
    await journal.append(begin);
    await journal.close();
    expect((await open()).last).toEqual(begin);
  });

  test("keeps the order of the calls, and each record as it was at the call", async () => {
    const journal = await open();
    const record = { ...begin };
    const appends = Array.from({ length: 20 }, (_, epoch) => {
      record.epoch = epoch;
      return journal.append(record);
    });
    record.epoch = 99;
    await Promise.all(appends);
    expect(journal.records.map(({ epoch }) => epoch)).toEqual([...Array(20).keys()]);
  });

  test("has a side: the dest's holds the dest's records", async () => {
    const journal = await Journal.open({ path, identity: destIdentity });
    for (const record of destRecords) await journal.append(record);
    await journal.close();
    await expect(open()).rejects.toMatchObject(damaged);
    const again = await Journal.open({ path, identity: destIdentity });
    expect(again.records).toEqual(destRecords);
    await again.close();
  });

  test("refuses a record that could not be read, and takes the next one", async () => {
    const journal = await open();
    const wrong = { ...begin, epoch: -1 };
    await expect(journal.append(wrong)).rejects.toThrow("invariant broken");
    const ofDest = destRecords[0] as unknown as SourceRecord;
    await expect(journal.append(ofDest)).rejects.toThrow("the source writes no record reserved");
    await journal.append(begin);
    expect(journal.records).toEqual([begin]);
  });

  test("is closed after what was asked for before, once, and takes nothing more", async () => {
    const journal = await open();
    const append = journal.append(begin);
    await Promise.all([journal.close(), journal.close()]);
    await append;
    await expect(journal.append(begin)).rejects.toThrow("that was closed");
    await expect(journal.compact()).rejects.toThrow("that was closed");
    expect((await open()).records).toEqual([begin]);
  });

  test("that is removed is gone, and locked for as long as it was not", async () => {
    const storage = new FileStorage(path);
    const journal = await Journal.open({ path, identity: sourceIdentity, storage });
    const remove = storage.remove.bind(storage);
    storage.remove = async () => {
      await expect(open()).rejects.toMatchObject({ code: "journal-locked" });
      await remove();
    };
    const append = journal.append(begin);
    await journal.remove();
    await append;
    await expect(stat(path)).rejects.toMatchObject({ code: "ENOENT" });
    expect(await open()).toMatchObject({ isNew: true, last: null });
  });

  test("that cannot be removed is let go of, as it is", async () => {
    const storage = new FileStorage(path);
    storage.remove = () => Promise.reject(new Error("EROFS"));
    const journal = await Journal.open({ path, identity: sourceIdentity, storage });
    await journal.append(begin);
    await expect(journal.remove()).rejects.toThrow("EROFS");
    await journal.close();
    expect((await open()).last).toEqual(begin);
  });

  test("that was closed is not removed: it may be somebody else's by now", async () => {
    const journal = await open();
    await journal.close();
    const other = await open();
    await expect(journal.remove()).rejects.toThrow("may be somebody else's");
    await other.append(begin);
    await other.close();
    expect((await open()).last).toEqual(begin);
  });

  test("is open once at a time", async () => {
    await open();
    await expect(open()).rejects.toMatchObject({ code: "journal-locked", detail: { path } });
  });
});

describe("a journal that a crash cut off", () => {
  test("has the whole records, says what was cut, and goes on, at every byte", async () => {
    const whole = await readFile(FIXTURE);
    for (let length = HEADER_BYTES; length < whole.length; length++) {
      await writeFile(path, whole.subarray(0, length));
      const journal = await open();
      const { records } = journal;
      expect(records, `${length} bytes`).toEqual(sourceRecords.slice(0, records.length));
      expect((await stat(path)).size + journal.tornBytes).toBe(length);
      await journal.append(begin);
      const expected = [...records];
      await journal.close();
      const again = await open();
      expect(again.records, `${length} bytes`).toEqual(expected);
      expect(again.tornBytes).toBe(0);
      await again.close();
    }
  });

  test("does not let an agent that is killed take back what it was told", async () => {
    const module = JSON.stringify(join(import.meta.dirname, "journal-file.ts"));
    const script = `
      import { Journal } from ${module};
      const options = ${JSON.stringify({ path, identity: sourceIdentity })};
      const journal = await Journal.open(options);
      for (let epoch = 0; ; epoch++) {
        await journal.append({ ...${JSON.stringify(begin)}, epoch });
        process.stdout.write(epoch + "\\n");
      }
    `;
    for (let round = 0; round < 3; round++) {
      const child = spawn(process.execPath, ["--input-type=module", "-e", script]);
      let told = "";
      const enough = new Promise<void>((resolve) => {
        child.stdout.on("data", (chunk: Buffer) => {
          told += chunk.toString();
          if (told.split("\n").length > 10 + round) resolve();
        });
      });
      await enough;
      child.kill("SIGKILL");
      await once(child, "close");
      const lastTold = Number(told.slice(0, told.lastIndexOf("\n")).split("\n").at(-1));
      const journal = await open();
      const epochs = journal.records.map(({ epoch }) => epoch);
      // A child that came far before it was killed has compacted its journal meanwhile.
      const [first] = epochs;
      expect(epochs).toEqual(epochs.map((_, index) => first! + index));
      expect(epochs.at(-1)).toBeGreaterThanOrEqual(lastTold);
      expect(epochs.at(-1)).toBeLessThanOrEqual(lastTold + 1);
      await journal.close();
      await rm(path);
    }
  });
});

describe("a journal that is not what it was", () => {
  test("is refused, stays as it is, and can be opened when it is whole again", async () => {
    const whole = await readFile(FIXTURE);
    const broken = Buffer.from(whole);
    broken[whole.length - 1]! ^= 1;
    await writeFile(path, broken);
    await expect(open()).rejects.toMatchObject({ detail: { ...damaged, path } });
    expect(await readFile(path)).toEqual(broken);
    await writeFile(path, whole);
    expect((await open()).records).toEqual(sourceRecords);
  });

  test("is refused where it is longer than any, before it is read", async () => {
    await copyFile(FIXTURE, path);
    const storage = new SimulatedStorage(Buffer.alloc(JOURNAL_BYTES_MAX + 1), (operation) => {
      if (operation === "read") throw new Error("it was read");
    });
    const opening = Journal.open({ path, identity: sourceIdentity, storage });
    await expect(opening).rejects.toMatchObject(damaged);
    await expect(opening).rejects.toThrow("longer than 16777216 bytes");
  });

  test("is refused where it is empty, for none ever was", async () => {
    await writeFile(path, "");
    await expect(open()).rejects.toMatchObject(damaged);
    expect((await stat(path)).size).toBe(0);
  });

  test("is refused where somebody else appended to it", async () => {
    await copyFile(FIXTURE, path);
    await appendFile(path, "and this is what I think of it\n");
    await expect(open()).rejects.toMatchObject(damaged);
  });
});

describe("a journal that was rewritten", () => {
  test("holds the last record alone, under the same incarnation, and counts on", async () => {
    const journal = await open();
    await appendAll(journal);
    await journal.compact();
    expect(journal.records).toEqual(sourceRecords.slice(-1));
    await journal.append(begin);
    await journal.close();
    const bytes = await readFile(path);
    expect(bytes.readBigUInt64BE(16)).toBe(7n);
    const again = await open();
    expect(again.incarnation).toBe(journal.incarnation);
    expect(again.records).toEqual([sourceRecords.at(-1), begin]);
    await again.append(reclaimed);
    await again.compact();
    expect((await readFile(path)).readBigUInt64BE(16)).toBe(9n);
  });

  test("is locked as it was before", async () => {
    const journal = await open();
    await appendAll(journal);
    await journal.compact();
    await expect(open()).rejects.toMatchObject({ code: "journal-locked" });
    await journal.close();
    await open();
  });

  test("stays as it is where there is nothing to leave out", async () => {
    const journal = await open();
    await journal.compact();
    await journal.append(begin);
    const { ino } = await stat(path);
    await journal.compact();
    expect((await stat(path)).ino).toBe(ino);
    expect(journal.records).toEqual([begin]);
  });

  test("was not where a guest is on its way, and goes on", async () => {
    const journal = await open();
    await journal.append(begin);
    await journal.append(handedOff);
    await expect(journal.compact()).rejects.toThrow("a journal that ends with handed-off is kept");
    await journal.append(reclaimed);
    expect(journal.records).toEqual([begin, handedOff, reclaimed]);
  });

  test("is not by itself where the attempt before is in doubt", async () => {
    const storage = new SimulatedStorage(null);
    const journal = await Journal.open({ path, identity: sourceIdentity, storage });
    let count = 0;
    for (; storage.durable!.length < 70_000; count++) await journal.append(handedOff);
    await journal.append(begin);
    expect(journal.records.length).toBe(count + 1);
  });

  test("is so by itself when a new attempt begins, as long as it takes", async () => {
    const storage = new SimulatedStorage(null);
    const journal = await Journal.open({ path, identity: sourceIdentity, storage });
    let longest = 0;
    for (let epoch = 0; epoch < 800; epoch++) {
      await journal.append({ ...begin, epoch });
      if (epoch % 3 === 0) {
        await journal.append({ ...handedOff, epoch });
        await journal.append({ ...reclaimed, epoch });
      }
      longest = Math.max(longest, storage.durable!.length);
      expect(journal.last?.epoch).toBe(epoch);
    }
    expect(longest).toBeGreaterThan(64 * 1024);
    expect(longest).toBeLessThan(66 * 1024);
  });
});

describe("a journal that is full", () => {
  test("refuses a record, is as good as before, and takes a shorter one", async () => {
    // No attempt begins behind these: nothing may be left out.
    const digest = Array(25).fill("f".repeat(64)).join(":");
    const long = { ...handedOff, digest } as SourceRecord;
    const header = encodeHeader({
      ...sourceIdentity,
      incarnation: SOURCE_INCARNATION,
      firstSeq: 1,
    });
    const parts = [header];
    let prevCrc = header.readUInt32BE(HEADER_BYTES - 4);
    let leftBytes = JOURNAL_BYTES_MAX - HEADER_BYTES;
    for (let seq = 1; ; seq++) {
      const frame = encodeFrame(encodeRecord("source", long), { seq, prevCrc });
      if (frame.length > leftBytes) break;
      parts.push(frame);
      prevCrc = frameCrc(frame);
      leftBytes -= frame.length;
    }
    expect(leftBytes).toBeGreaterThan(500);
    const storage = new SimulatedStorage(Buffer.concat(parts));
    const journal = await Journal.open({ path, identity: sourceIdentity, storage });
    const full = { detail: { code: "journal-full", path } };
    await expect(journal.append(long)).rejects.toMatchObject(full);
    expect(journal.failed).toBe(false);
    expect(journal.records.length).toBe(parts.length - 1);
    await journal.append(reclaimed);
    expect(journal.last).toEqual(reclaimed);
    // Which settles it: there is room for a new attempt.
    await journal.append(begin);
    expect(journal.records).toEqual([reclaimed, begin]);
  });
});
