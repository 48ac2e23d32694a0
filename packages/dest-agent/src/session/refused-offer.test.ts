// What is left of an offer that is turned away before anything was recorded of it.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  createLogger,
  EventHub,
  JournalShelf,
  ManualClock,
  MigrationStore,
  ProblemError,
  type Journal,
} from "@vmferry/agent";
import { DestSessions } from "./dest-sessions.ts";
import { OFFERED_UUID, OfferingSource } from "./offering-source.ts";

const identity = { guest: "web1", uuid: OFFERED_UUID };

let stateDir: string;
let shelf: JournalShelf<"dest">;

beforeEach(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "vmferry-refused-"));
  shelf = await JournalShelf.open("dest", stateDir);
});
afterEach(() => rm(stateDir, { recursive: true }));

function openSessions(journals: Pick<JournalShelf<"dest">, "take">): DestSessions {
  const clock = new ManualClock();
  return new DestSessions({
    store: new MigrationStore({ hub: new EventHub({ clock }), clock }),
    journals,
    logger: createLogger({ role: "dest", level: "silent" }),
    ...{ clock, witness: null, sharedDir: null, software: "test", incarnation: "d1" },
    ...{ guestsDir: "guests", runDir: "run", onPageFault: () => undefined },
    answerProbe: () => Promise.reject(new Error("nobody asks")),
    openReception: () =>
      Promise.reject(new ProblemError("it does not listen", { code: "dest-qemu-failed" })),
  });
}

async function offer(sessions: DestSessions, migrationId: string): Promise<string | undefined> {
  const source = new OfferingSource(migrationId);
  await sessions.admitControl(source);
  return source.rejected?.code;
}

test("its journal says nothing, and is gone before the guest is offered again", async () => {
  const sessions = openSessions(shelf);
  expect(await offer(sessions, "m1")).toBe("dest-qemu-failed");
  expect(await offer(sessions, "m2")).toBe("dest-qemu-failed");
  await (await shelf.take(identity)).remove();
  expect(await shelf.list()).toEqual([]);
});

test("whoever opens the guest's journal as soon as nobody holds it has one that stays", async () => {
  let next: Journal<"dest"> | null = null;
  const sessions = openSessions({
    take: async (of) => {
      const journal = await shelf.take(of);
      for (const letGo of ["close", "remove"] as const) {
        const release = journal[letGo].bind(journal);
        journal[letGo] = async () => {
          await release();
          next ??= await shelf.take(of);
        };
      }
      return journal;
    },
  });
  expect(await offer(sessions, "m1")).toBe("dest-qemu-failed");
  // It waits for all of the first one to be gone, and finds the journal in other hands.
  expect(await offer(sessions, "m2")).toBe("journal-locked");
  expect((await shelf.list()).map((one) => ({ ...one }))).toEqual([identity]);
  await next!.close();
});
