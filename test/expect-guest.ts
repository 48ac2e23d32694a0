// What has to be true of a guest after every migration, whether it arrived or stayed.

import { expect } from "vitest";
import type { MigrationObject, MigrationPhase, ProblemCode } from "@vmferry/protocol";
import { judgeHandOver, type GuestReport } from "@vmferry/testkit";
import { pause, type MoveOptions, type MovingGuest } from "./moving-guest.ts";

const WAIT_MS = 90_000;
/** "Within a second", with slack for a machine that has other things to do. */
const SILENCE_MS_MAX = 2000;
const GONE_MS_MAX = 10_000;
const WORKS_MS_MAX = 30_000;

/** Moves the guest and checks everything that can be seen of it from outside. */
export async function expectMoves(
  guest: MovingGuest,
  options: MoveOptions = {},
): Promise<MigrationObject> {
  const id = await guest.migrate(options);
  return expectArrives(guest, id);
}

/** Waits for a migration that is under way to complete. */
export async function expectArrives(guest: MovingGuest, id: string): Promise<MigrationObject> {
  const { source, dest } = guest.lab;
  const migration = await source.api.wait(id, WAIT_MS);
  expect(migration.error).toBe(null);
  expect(migration.phase).toBe("completed");
  const verdict = await guest.verifyAtDest();
  expect(verdict.findings).toEqual([]);
  const atDest = await dest.api.wait(id, WAIT_MS);
  expect(atDest).toMatchObject({ id, role: "dest", phase: "completed", error: null });
  expect(migration.result?.ramDigest).toMatch(/^[0-9a-f]{64}$/);
  expect(atDest.result?.ramDigest).toBe(migration.result?.ramDigest);
  expect(await guest.atDest()).toMatchObject({ state: "running" });
  await expect
    .poll(() => guest.atSource(), { timeout: GONE_MS_MAX })
    .toMatchObject({ state: "handed-off", pid: null });
  expect(guest.qemus("source")).toEqual([]);
  expect(guest.qemus("dest")).toHaveLength(1);
  return migration;
}

export interface Failing {
  readonly code: ProblemCode;
  /** The phase in which it was, as far as the source knew. */
  readonly during: MigrationPhase;
  /** When the fault was made, on the monotonic clock; by default the call. */
  readonly sinceMs?: number;
  /** How long the guest may have been silent. */
  readonly silenceMsMax?: number;
}

/** The migration ends with this error, and the guest works on at the source as if nothing was. */
export async function expectKept(
  guest: MovingGuest,
  id: string,
  { code, during, sinceMs = performance.now(), silenceMsMax = SILENCE_MS_MAX }: Failing,
): Promise<MigrationObject> {
  const migration = await guest.lab.source.api.wait(id, WAIT_MS);
  expect(migration).toMatchObject({
    phase: code === "cancelled" ? "cancelled" : "failed",
    error: { code },
    result: null,
    mayCancel: false,
  });
  expect(migration.phases.at(-2)?.phase).toBe(during);
  await expectWorksAtSource(guest, sinceMs, silenceMsMax);
  await expectNothingAtDest(guest);
  return migration;
}

/** Its counters move, nothing is damaged, and it was not silent for long after `sinceMs`. */
export async function expectWorksAtSource(
  guest: MovingGuest,
  sinceMs: number,
  silenceMsMax = SILENCE_MS_MAX,
): Promise<void> {
  const { source } = guest;
  const before = source.latestReport;
  await source.waitFor(({ latestReport }) => hasWorkedSince(before, latestReport, guest.usesDisk), {
    timeoutMs: WORKS_MS_MAX,
  });
  expect(longestSilenceMs(guest, sinceMs)).toBeLessThan(silenceMsMax);
  const { findings } = judgeHandOver({ sourceLines: source.lines, destLines: [] });
  expect(findings.filter(({ code }) => code !== "dest-silent")).toEqual([]);
  expect(await guest.atSource()).toMatchObject({ state: "running" });
  expect(guest.qemus("source")).toHaveLength(1);
}

/** No QEMU of this guest, and nothing that the dest agent still counts as a guest. */
export async function expectNothingAtDest(guest: MovingGuest): Promise<void> {
  await expect.poll(() => guest.qemus("dest"), { timeout: GONE_MS_MAX }).toEqual([]);
  const { dest } = guest.lab;
  await expect
    .poll(async () => (await dest.api.guests()).filter(({ name }) => name === guest.name), {
      timeout: GONE_MS_MAX,
    })
    .toEqual([]);
}

/** The dest's own account of the same migration. */
export async function expectDestSays(
  guest: MovingGuest,
  id: string,
  code: ProblemCode,
): Promise<void> {
  const phase = code === "cancelled" ? "cancelled" : "failed";
  const migration = await guest.lab.dest.api.wait(id, WAIT_MS);
  expect(migration).toMatchObject({ role: "dest", phase, error: { code } });
}

/** Never do two guests run: asked of both QEMU processes by what they write. */
export async function expectSilentAtSource(guest: MovingGuest): Promise<void> {
  const before = guest.source.latestSign?.sequence ?? null;
  await pause(500);
  expect(guest.source.latestSign?.sequence ?? null).toBe(before);
}

/** Some 20 signs of life later, and with more of its memory and disk verified. */
function hasWorkedSince(
  before: GuestReport | null,
  now: GuestReport | null,
  usesDisk: boolean,
): boolean {
  if (before === null || now === null) return false;
  if (usesDisk && now.diskReads <= before.diskReads) return false;
  return now.sequence > before.sequence + 20 && now.verified > before.verified;
}

/** Between two signs of life of which the second came after `sinceMs`. */
function longestSilenceMs(guest: MovingGuest, sinceMs: number): number {
  let longest = 0;
  let last: number | null = null;
  for (const { text, seenAtMs } of guest.source.lines) {
    if (!text.startsWith("#")) continue;
    const from = Math.max(last ?? sinceMs, sinceMs);
    if (seenAtMs > sinceMs) longest = Math.max(longest, seenAtMs - from);
    last = seenAtMs;
  }
  return longest;
}
