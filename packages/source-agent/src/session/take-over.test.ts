import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { JournalShelf, ManualClock, type JournalRecordOf } from "@vmferry/agent";
import { takeOver } from "./take-over.ts";

const identity = { guest: "web1", uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8" };
const stun = { migrationId: "m1", epoch: 8, generation: 1, peer: "host-b", peerIncarnation: "d1" };
const begin = { kind: "begin", ...stun } as const;
const handedOff = { kind: "handed-off", ...stun, digest: "d1".repeat(32) } as const;
const released = { kind: "released", ...stun } as const;
const clock = new ManualClock();

let stateDir: string;
let journals: JournalShelf<"source">;

beforeEach(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "vmferry-take-over-"));
  journals = await JournalShelf.open("source", stateDir);
});

afterEach(async () => {
  await rm(stateDir, { recursive: true });
});

async function write(
  guest: string,
  ...records: readonly JournalRecordOf<"source">[]
): Promise<void> {
  const journal = await journals.take({ ...identity, guest });
  for (const record of records) await journal.append(record);
  await journal.close();
}

test("the epoch of a guest from outside is larger than any that it had", async () => {
  const epoch = await takeOver(identity, { journals, clock });
  expect(epoch).toBe(Math.floor(clock.date().getTime() / 1000));
  expect(epoch).toBeGreaterThan(1_000_000_000);
});

test("a journal of the same guest that has nothing open is over, whatever its name was", async () => {
  await write("web0", begin, handedOff, released, { kind: "done", ...stun });
  await takeOver(identity, { journals, clock });
  expect(await journals.list()).toEqual([]);
});

test.each([
  ["handed off", [begin, handedOff]],
  ["released", [begin, handedOff, released]],
])("a guest that was %s, and no more is known, is not taken over", async (_, records) => {
  await write("web1", ...records);
  const taken = takeOver(identity, { journals, clock });
  await expect(taken).rejects.toMatchObject({ code: "guest-in-doubt" });
  expect(await journals.list()).toHaveLength(1);
});

test("nor is one of another UUID, and of the name of such a guest: not every QEMU has one", async () => {
  await write("web1", begin, handedOff);
  const other = { guest: "web1", uuid: "7ba7b810-9dad-41d1-80b4-00c04fd430c8" };
  const taken = takeOver(other, { journals, clock });
  await expect(taken).rejects.toMatchObject({ code: "guest-in-doubt" });
});

test("nor is one whose journal a migration has open", async () => {
  const journal = await journals.take(identity);
  for (const record of [begin, handedOff]) await journal.append(record);
  const taken = takeOver(identity, { journals, clock });
  await expect(taken).rejects.toMatchObject({ code: "guest-in-doubt" });
  await journal.close();
});

test("the journals of other guests are theirs", async () => {
  await write("web1", begin);
  const other = { guest: "web1", uuid: "7ba7b810-9dad-41d1-80b4-00c04fd430c8" };
  await takeOver(other, { journals, clock });
  expect(await journals.list()).toHaveLength(1);
});
