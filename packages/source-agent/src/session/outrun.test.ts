import { beforeEach, describe, expect, test } from "vitest";
import { ManualClock } from "@vmferry/agent";
import { Outrun, type MeasuredQemu } from "./outrun.ts";

const MIB = 2 ** 20;

let clock: ManualClock;
let readBytes: number;
let waitedMs: number;
let measured: number | null;
let begun: number;
let qemu: MeasuredQemu;

beforeEach(() => {
  clock = new ManualClock();
  readBytes = 5 * MIB;
  waitedMs = 0;
  measured = null;
  begun = 0;
  qemu = {
    measureDirtyRate: () => Promise.resolve(++begun > 0),
    dirtyBytesPerSecond: () => Promise.resolve(measured),
  };
});

describe("a guest that outruns the link", () => {
  const open = (): Outrun =>
    new Outrun({ qemu, readBytes: () => readBytes, waitedMs: () => waitedMs, clock });

  /** A look half a second later, at 100 MiB/s. */
  async function look(outrun: Outrun, waitedShare = 0.5): Promise<boolean> {
    clock.advance(500);
    readBytes += 50 * MIB;
    waitedMs += 500 * waitedShare;
    return await outrun.isSeen();
  }

  test("is seen as soon as QEMU has measured that it changes faster than it is read", async () => {
    const outrun = open();
    expect(await outrun.isSeen()).toBe(false);
    expect(await look(outrun)).toBe(false);
    measured = 101 * MIB;
    expect(await look(outrun)).toBe(true);
    expect(begun).toBe(1);
  });

  test("is not seen where it is read as fast as it changes", async () => {
    const outrun = open();
    await outrun.isSeen();
    measured = 100 * MIB;
    expect(await look(outrun)).toBe(false);
  });

  test("is not seen while it is not the link that reading waits for", async () => {
    const outrun = open();
    await outrun.isSeen();
    measured = 500 * MIB;
    expect(await look(outrun, 0.2)).toBe(false);
    expect(await look(outrun, 0.3)).toBe(true);
  });

  test.each<[string, Partial<MeasuredQemu>]>([
    ["cannot measure", { measureDirtyRate: () => Promise.resolve(false) }],
    ["refuses to", { measureDirtyRate: () => Promise.reject(new Error("already measuring")) }],
    ["does not tell", { dirtyBytesPerSecond: () => Promise.reject(new Error("no such shape")) }],
  ])("is never seen where QEMU %s, and nothing fails", async (_, answers) => {
    qemu = { ...qemu, ...answers };
    const outrun = open();
    await outrun.isSeen();
    expect(await look(outrun)).toBe(false);
    measured = 500 * MIB;
    expect(await look(outrun)).toBe(false);
  });
});
