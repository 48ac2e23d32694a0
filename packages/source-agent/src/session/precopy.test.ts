import { beforeEach, describe, expect, test } from "vitest";
import { ManualClock } from "@vmferry/agent";
import { Deferred } from "@vmferry/core";
import type { QmpEvent } from "@vmferry/qemu";
import type { DrainStart } from "../ram/drain.ts";
import type { MigrationPlan } from "./migration-plan.ts";
import { Precopy, type PrecopyPorts } from "./precopy.ts";

const FORCED_DIRTY_BYTES = 2 ** 50;

let clock: ManualClock;
/** What QEMU has been told, and the drain. */
let log: string[];
let passes: number;
let isAnnounced: boolean;
let emit: (event: QmpEvent) => void;
let abort: AbortController;
/** Of a drain that is about to begin; null: it begins at once. */
let begins: Deferred | null;

beforeEach(() => {
  clock = new ManualClock();
  log = [];
  passes = 1;
  isAnnounced = true;
  begins = null;
  abort = new AbortController();
});

/** A guest of 16 GB. */
function precopy(mode: MigrationPlan["mode"] = "auto"): Precopy {
  const ram = { remainingBytes: 16e9, pageSizeBytes: 4096, dirtyPagesPerSecond: 0 };
  const qemu = {
    migrate: () => Promise.resolve(),
    onEvent: (listener: (event: QmpEvent) => void) => {
      emit = listener;
      return () => undefined;
    },
    query: () => Promise.resolve({ status: "active", ram: { ...ram, passes } }),
    measureDirtyRate: () => {
      log.push("measure");
      return Promise.resolve(true);
    },
    dirtyBytesPerSecond: () => Promise.resolve(0),
    setDirtyBytesMax: (bytes: number) => {
      if (bytes === FORCED_DIRTY_BYTES) log.push("force");
      return Promise.resolve();
    },
    throttle: () => {
      log.push("throttle");
      return Promise.resolve();
    },
  };
  const transfer = {
    waitedMs: 0,
    get blocks() {
      return isAnnounced ? [] : null;
    },
    sender: {
      drainStage: "telling",
      heldBytes: 0,
      counters: { cameAgainPages: 0, cameHeldPages: 0 },
      setHeldBytesMax: () => undefined,
      refreshDigest: () => Promise.resolve(),
      stunned: () => undefined,
    },
    goNow: () => log.push("go now"),
    hurry: () => undefined,
    secondPassOver: () => undefined,
  };
  const transport = {
    pendingBytes: 0,
    wireShare: 1,
    isAway: false,
    reconnects: 0,
    out: { rate: { bytesPerSecond: 1e8 } },
  };
  const drainage = {
    begin: async (start: DrainStart) => {
      await begins?.promise;
      log.push(start);
    },
    readBytes: () => (clock.nowMs() * 500e6) / 1000,
  };
  const ports = {
    ...{ qemu, transfer, transport, disks: null, drainage, clock },
    roundTripMs: () => 0,
    limits: () => ({ downtimeMsMax: 300 }),
    onProgress: () => undefined,
    onWarning: (code: string) => log.push(code),
  };
  return new Precopy(
    ports as unknown as PrecopyPorts,
    { mode, onStall: "cancel" } as MigrationPlan,
  );
}

async function run(migration: Precopy): Promise<void> {
  migration.run("unix:/x", abort.signal).catch(() => undefined);
  await settled();
}

async function later(ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 10) {
    clock.advance(10);
    await settled();
  }
}

async function settled(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
}

describe("post-copy that is asked for", () => {
  test("begins in the first pass, and waits for its end, however long it takes", async () => {
    const migration = precopy();
    await run(migration);
    await later(1000);
    migration.postcopy();
    await settled();
    expect(log).toEqual(["now", "go now"]);
    await later(20_000);
    expect(log).toEqual(["now", "go now"]);
    // Two seconds after it the guest still changes faster than it is read: as in any other drain.
    passes = 2;
    await later(2000);
    expect(log).toEqual(["now", "go now", "throttle"]);
    await later(5000);
    expect(log).toEqual(["now", "go now", "throttle", "not-converging", "force"]);
    abort.abort();
  });

  test("begins as soon as QEMU has announced its memory, and nobody measures before", async () => {
    isAnnounced = false;
    const migration = precopy("post-copy");
    const running = run(migration);
    migration.postcopy();
    await running;
    await later(50);
    expect(log).toEqual([]);
    isAnnounced = true;
    await later(10);
    expect(log).toEqual(["now", "go now"]);
    abort.abort();
  });

  test("makes a drain that is about to begin one that goes now", async () => {
    const migration = precopy("post-copy");
    await run(migration);
    expect(log).toEqual(["measure"]);
    begins = new Deferred();
    passes = 2;
    await later(200);
    migration.postcopy();
    begins.resolve();
    await settled();
    expect(log).toEqual(["measure", "second-pass", "go now", "throttle"]);
    abort.abort();
  });

  test("of mode post-copy begins with the second pass by itself", async () => {
    await run(precopy("post-copy"));
    await later(1000);
    expect(log).toEqual(["measure"]);
    passes = 2;
    emit({ name: "MIGRATION_PASS", data: { pass: 2 }, seconds: 0 } as unknown as QmpEvent);
    await settled();
    expect(log).toEqual(["measure", "second-pass", "throttle"]);
    abort.abort();
  });
});
