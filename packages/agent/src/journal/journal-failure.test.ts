/**
 * A disk that fails, and hosts and agents that die at every step: what was told to be recorded is
 * there afterwards, and what was told not to be is not.
 */
import { beforeEach, describe, expect, test } from "vitest";
import { Journal } from "./journal-file.ts";
import type { JournalRecordOf } from "./journal-record.ts";
import { sourceIdentity, sourceRecords } from "./sample-records.ts";
import { SimulatedStorage, type Operation } from "./simulated-storage.ts";

type SourceRecord = JournalRecordOf<"source">;

const PATH = "/journal";
const [begin, handedOff, reclaimed] = sourceRecords as [SourceRecord, SourceRecord, SourceRecord];

let storage: SimulatedStorage;
/** What the disk was asked for. */
let operations: Operation[];

beforeEach(() => {
  operations = [];
  storage = new SimulatedStorage(null);
});

function open(of = storage): Promise<Journal<"source">> {
  return Journal.open({ path: PATH, identity: sourceIdentity, storage: of });
}

function failAt(operation: Operation): void {
  operations = [];
  storage.onOperation = (each) => {
    operations.push(each);
    if (each === operation) throw Object.assign(new Error("EIO: i/o error"), { code: "EIO" });
  };
}

function works(): void {
  operations = [];
  storage.onOperation = (each) => operations.push(each);
}

function failedWith(recorded: "no" | "unknown"): object {
  return { detail: { code: "journal-failed", path: PATH, recorded } };
}

/** What journals say, each once, that are opened after the crashes that are possible now. */
async function recordsAfterCrash(): Promise<(readonly SourceRecord[])[]> {
  const outcomes = new Map<string, readonly SourceRecord[]>();
  for (const content of storage.afterCrash()) {
    const { records } = await open(new SimulatedStorage(content));
    outcomes.set(JSON.stringify(records), records);
  }
  return [...outcomes.values()];
}

describe("a journal whose disk fails", () => {
  test.each([
    ["write", "no"],
    ["datasync", "unknown"],
  ] as const)("at a %s takes nothing any more, and asks the disk no more", async (at, recorded) => {
    const journal = await open();
    await journal.append(begin);
    failAt(at);
    await expect(journal.append(handedOff)).rejects.toMatchObject(failedWith(recorded));
    expect(journal.failed).toBe(true);
    works();
    await expect(journal.append(reclaimed)).rejects.toMatchObject(failedWith("no"));
    await expect(journal.compact()).rejects.toMatchObject(failedWith("no"));
    await expect(journal.append(begin)).rejects.toThrow(
      "nothing can be recorded in the journal /journal any more: EIO: i/o error",
    );
    expect(operations).toEqual([]);
    expect(journal.records).toEqual([begin]);
    expect(journal.last).toEqual(begin);
    await journal.close();
  });

  test("fails what waits behind the failure, too", async () => {
    const journal = await open();
    failAt("datasync");
    const appends = [begin, handedOff, reclaimed].map((record) => journal.append(record));
    await expect(appends[0]).rejects.toMatchObject(failedWith("unknown"));
    await expect(appends[1]).rejects.toMatchObject(failedWith("no"));
    await expect(appends[2]).rejects.toMatchObject(failedWith("no"));
    expect(operations).toEqual(["write", "datasync"]);
  });

  test("syncs before it says that a record is durable", async () => {
    const journal = await open();
    works();
    await journal.append(begin);
    expect(operations).toEqual(["write", "datasync"]);
    expect(await recordsAfterCrash()).toEqual([[begin]]);
  });

  test("does not know of the record whose sync failed, and finds it or not", async () => {
    const journal = await open();
    await journal.append(begin);
    failAt("datasync");
    await expect(journal.append(handedOff)).rejects.toMatchObject(failedWith("unknown"));
    expect(await recordsAfterCrash()).toEqual([[begin], [begin, handedOff]]);
  });

  test("makes durable what it finds, although the disk said that it had nothing to write", async () => {
    const journal = await open();
    await journal.append(begin);
    failAt("datasync");
    await expect(journal.append(handedOff)).rejects.toMatchObject(failedWith("unknown"));
    storage.agentDies();
    works();
    const again = await open();
    // It is in the page cache alone, and clean.
    expect(again.records).toEqual([begin, handedOff]);
    expect(operations).toEqual(["open", "read", "write", "datasync"]);
    expect(await recordsAfterCrash()).toEqual([[begin, handedOff]]);
  });

  test.each(["read", "truncate", "write", "datasync"] as const)(
    "at a %s cannot be opened, and is not held then",
    async (at) => {
      const journal = await open();
      await journal.append(begin);
      const torn = Buffer.concat([storage.durable!, Buffer.from("JR")]);
      storage = new SimulatedStorage(torn);
      failAt(at);
      await expect(open()).rejects.toMatchObject({ code: "journal-not-usable" });
      works();
      const again = await open();
      expect(again.records).toEqual([begin]);
    },
  );

  test("when it is rewritten takes nothing any more", async () => {
    const journal = await open();
    for (const record of sourceRecords) await journal.append(record);
    failAt("replace");
    await expect(journal.compact()).rejects.toMatchObject(failedWith("no"));
    works();
    await expect(journal.append(begin)).rejects.toMatchObject(failedWith("no"));
    expect(operations).toEqual([]);
    expect(await recordsAfterCrash()).toEqual([sourceRecords]);
  });
});

/** More operations than a life has, and than an opening. */
const LIFE_OPERATIONS = 40;
const OPENING_OPERATIONS = 6;

function crashAt(operation: number): () => void {
  let count = 0;
  return () => {
    if (count++ >= operation) throw new Error("the host is down");
  };
}

/** What an agent is told that its journal holds, on a disk that ends at one of its operations. */
async function live(disk: SimulatedStorage): Promise<SourceRecord[]> {
  const told: SourceRecord[] = [];
  try {
    const journal = await open(disk);
    for (const [epoch, record] of [...sourceRecords, begin, handedOff].entries()) {
      const own = { ...record, epoch };
      await journal.append(own);
      told.push(own);
      if (epoch === 2 || epoch === 6) await journal.compact();
    }
  } catch {
    // The crash, as the journal tells of it.
  }
  return told;
}

function check(found: readonly SourceRecord[], told: readonly SourceRecord[]): void {
  const epochs = found.map(({ epoch }) => epoch);
  // In order, without a gap, from where the journal was rewritten.
  const first = epochs[0] ?? 0;
  expect([0, 2, 6]).toContain(first);
  expect(epochs).toEqual(epochs.map((_, index) => first + index));
  const count = first + epochs.length;
  expect(count).toBeGreaterThanOrEqual(told.length);
  // One more may have become durable that nobody was told of.
  expect(count).toBeLessThanOrEqual(told.length + 1);
}

/** Opens what the crashes that are possible now leave, each content once. */
async function checkCrashes(
  disk: SimulatedStorage,
  told: readonly SourceRecord[],
  seen: Set<string>,
): Promise<void> {
  for (const content of disk.afterCrash()) {
    const key = `${told.length} ${content?.toString("base64") ?? ""}`;
    if (seen.has(key)) continue;
    seen.add(key);
    const next = new SimulatedStorage(content);
    const journal = await open(next);
    check(journal.records, told);
    // What was found is found again, whatever happens then.
    for (const later of next.afterCrash()) {
      const again = await open(new SimulatedStorage(later));
      expect(again.records).toEqual(journal.records);
      expect(again.incarnation).toBe(journal.incarnation);
    }
  }
}

describe("a crash at every operation of the disk", () => {
  test("is all of them", async () => {
    let count = 0;
    expect((await live(new SimulatedStorage(null, () => count++))).length).toBe(9);
    expect(count).toBeGreaterThan(20);
    expect(count).toBeLessThan(LIFE_OPERATIONS);
  });

  test("of the host takes nothing back that was told, whatever was written by then", async () => {
    const seen = new Set<string>();
    for (let operation = 0; operation < LIFE_OPERATIONS; operation++) {
      const disk = new SimulatedStorage(null, crashAt(operation));
      await checkCrashes(disk, await live(disk), seen);
    }
    expect(seen.size).toBeGreaterThan(1000);
  });

  test("of the agent does not either, nor one of the host while the next one starts", async () => {
    const seen = new Set<string>();
    for (let operation = 0; operation < LIFE_OPERATIONS; operation++) {
      for (let opening = 0; opening < OPENING_OPERATIONS; opening++) {
        const disk = new SimulatedStorage(null, crashAt(operation));
        const told = await live(disk);
        disk.agentDies();
        disk.onOperation = crashAt(opening);
        await open(disk).catch(() => undefined);
        await checkCrashes(disk, told, seen);
      }
    }
    expect(seen.size).toBeGreaterThan(1000);
  });

  test("of a host that goes down again while a torn record is cut off, does not either", async () => {
    const seen = new Set<string>();
    let disk = new SimulatedStorage(null);
    let told: SourceRecord[] = [];
    // The first crash that can leave a part of a record behind another one.
    for (let operation = 5; disk.afterCrash().length < 100; operation++) {
      expect(operation).toBeLessThan(LIFE_OPERATIONS);
      disk = new SimulatedStorage(null, crashAt(operation));
      told = await live(disk);
    }
    for (const content of disk.afterCrash()) {
      for (let opening = 0; opening < OPENING_OPERATIONS; opening++) {
        const next = new SimulatedStorage(content, crashAt(opening));
        await open(next).catch(() => undefined);
        await checkCrashes(next, told, seen);
      }
    }
    expect(seen.size).toBeGreaterThan(100);
  });
});
