// The demo itself: a guest at work at the source, its migration, and the same guest at work at the
// destination. Nothing here cleans up; whoever opened the lab closes it.

import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { AgentApi, followMigration, ProgressDisplay, summaryLine } from "@vmferry/cli";
import { AgentError, assert } from "@vmferry/core";
import type { MigrationObject } from "@vmferry/protocol";
import { judgeHandOver, type GuestConsole, type GuestReport, type Lab } from "@vmferry/testkit";
import type { DemoOptions } from "./demo-options.ts";
import type { DemoEvidence } from "./demo-verdict.ts";

const GUEST = "demo";
const DISK_IMAGE = "demo.raw";
/** How much of the disk holds data. */
const DISK_FILL = 0.5;
const MIB = 1024 * 1024;
const BOOT_MS_MAX = 120_000;
const MIGRATION_MS_MAX = 600_000;
const SWEEPS_MS_MAX = 180_000;
const SETTLE_MS_MAX = 20_000;
const SETTLE_LOOKS_MS = 50;

export class DemoError extends AgentError<{
  readonly code: "guest-gave-up" | "migration-not-completed";
}> {}

export interface DemoSetting {
  readonly lab: Lab;
  readonly options: DemoOptions;
  readonly say: (text: string) => void;
  readonly signal: AbortSignal;
}

export async function runDemo(setting: DemoSetting): Promise<DemoEvidence> {
  const { lab, options, say } = setting;
  const disk = options.diskMib > 0;
  if (disk) {
    say(`Making a disk of ${options.diskMib} MiB ...`);
    await lab.makeDisk(DISK_IMAGE, options.diskMib * MIB, { fill: DISK_FILL });
  }
  say("Booting the guest at the source ...");
  const source = await bootGuest(setting);
  const { pid } = await lab.source.api.guest(GUEST);
  const before = await seeWholeSweeps(source, { count: 1, disk });
  say(`  it works: ${reportText(before)}`);

  say("Migrating it while it works ...");
  const dest = lab.follow(lab.destSerialLog(GUEST));
  const migration = await migrate(setting);
  const everything = disk ? "every page and record" : "every page";
  say(`Waiting until it has looked twice at ${everything} at the destination ...`);
  const after = await seeWholeSweeps(dest, { count: 2, disk });
  say(`  it works: ${reportText(after)}`);
  return {
    source: migration,
    dest: await lab.dest.api.wait(migration.id, SETTLE_MS_MAX),
    sourceQemuEnded: pid === null || (await processEnds(pid)),
    guestAtSource: await lab.source.api.guest(GUEST),
    guestAtDest: await lab.dest.api.guest(GUEST),
    consoles: [source, dest],
    handOver: judgeHandOver({ sourceLines: source.lines, destLines: dest.lines }),
    before,
    after,
  };
}

/** Resolves when the workload works; rejects as soon as the guest says that it never will. */
async function bootGuest({ lab, options }: DemoSetting): Promise<GuestConsole> {
  const { memoryMib, diskMib, workload } = options;
  const disks = diskMib > 0 ? [{ id: "disk0", image: DISK_IMAGE }] : [];
  const early = lab.follow(join(lab.directory, "s", "guests", GUEST, "serial.log"));
  const gaveUp = early.waitFor(assertNoFaults, { timeoutMs: BOOT_MS_MAX });
  const booted = lab.bootGuest({ name: GUEST, memoryMib, workload, disks });
  await Promise.race([booted, gaveUp]);
  early.close();
  return booted;
}

async function migrate({ lab, options, say, signal }: DemoSetting): Promise<MigrationObject> {
  const limits = { totalMsMax: MIGRATION_MS_MAX, ...options.limits };
  const { id } = await lab.source.api.migrate({ guest: GUEST, destination: "dest", limits });
  const api = new AgentApi({ url: new URL(lab.source.api.url), token: null });
  const display = new ProgressDisplay(process.stdout, process.env);
  try {
    const ended = await followMigration({
      api,
      id,
      signal,
      onEvent: (event) => {
        display.show(event);
      },
      onNotice: (text) => {
        display.say(text);
      },
    });
    display.close();
    if (ended.phase === "completed") say(`  ${summaryLine(ended)}`);
    else throw new DemoError(summaryLine(ended), { code: "migration-not-completed" });
  } finally {
    display.close();
  }
  return lab.source.api.migration(id);
}

/**
 * The counters after that many sweeps over all of the workload's memory and disk, each from its
 * beginning to its end on this console: the sweep in which the console begins may have begun
 * elsewhere. Where there is no disk, no sweep of it is waited for.
 */
async function seeWholeSweeps(
  console: GuestConsole,
  { count, disk }: { readonly count: number; readonly disk: boolean },
): Promise<GuestReport> {
  let first: GuestReport | null = null;
  const seen = ({ latestReport }: GuestConsole): boolean => {
    assertNoFaults(console);
    if (latestReport === null) return false;
    first ??= latestReport;
    if (disk && latestReport.diskSweeps <= first.diskSweeps + count) return false;
    return latestReport.sweeps > first.sweeps + count;
  };
  await console.waitFor(seen, { timeoutMs: SWEEPS_MS_MAX });
  const { latestReport } = console;
  assert(latestReport !== null, "what was seen is still there");
  return latestReport;
}

/** Never true: a predicate that waits for nothing but trouble. */
function assertNoFaults({ errors, kernelComplaints }: GuestConsole): boolean {
  const [fault] = [...errors, ...kernelComplaints];
  if (fault === undefined) return false;
  throw new DemoError(`the guest says: ${fault}`, { code: "guest-gave-up" });
}

async function processEnds(pid: number): Promise<boolean> {
  for (let waitedMs = 0; waitedMs < SETTLE_MS_MAX; waitedMs += SETTLE_LOOKS_MS) {
    try {
      process.kill(pid, 0);
    } catch {
      return true;
    }
    await delay(SETTLE_LOOKS_MS);
  }
  return false;
}

function reportText(report: GuestReport): string {
  const count = (value: number): string => value.toLocaleString("en-US");
  const { writes, verified, sweeps, errors, diskWrites, diskReads, diskErrors } = report;
  const memory =
    `${count(writes)} pages rewritten, ${count(verified)} pages checked in ` +
    `${count(sweeps)} sweeps over all of them, ${count(errors)} damaged`;
  if (diskWrites === 0) return memory;
  const disk =
    `${count(diskWrites)} records written to the disk, ${count(diskReads)} read back, ` +
    `${count(diskErrors)} damaged`;
  return `${memory};\n            ${disk}`;
}
