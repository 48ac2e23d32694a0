import { formatBytes, formatDuration } from "@vmferry/cli";
import type { GuestObject, MigrationDisk, MigrationObject } from "@vmferry/protocol";
import type { GuestReport, HandOverFinding } from "@vmferry/testkit";
import { findingsOf, type DemoEvidence } from "./demo-verdict.ts";

/** What `--json` prints. Null is what was not come to. */
export interface DemoOutcome {
  readonly ok: boolean;
  /** Why not; empty when all is well. */
  readonly reasons: readonly string[];
  readonly source: MigrationObject | null;
  readonly dest: MigrationObject | null;
  readonly guest: {
    readonly atSource: GuestObject;
    readonly atDest: GuestObject;
    /** Its own counters, from just before the migration and from the destination. */
    readonly before: GuestReport;
    readonly after: GuestReport;
  } | null;
  readonly console: {
    /** From the last sign of life at the source to the first at the destination. */
    readonly silenceMs: number | null;
    readonly findings: readonly HandOverFinding[];
  } | null;
}

export function outcomeOf(evidence: DemoEvidence): DemoOutcome {
  const { source, dest, guestAtSource, guestAtDest, before, after, handOver } = evidence;
  const reasons = findingsOf(evidence);
  return {
    ok: reasons.length === 0,
    reasons,
    source,
    dest,
    guest: { atSource: guestAtSource, atDest: guestAtDest, before, after },
    console: handOver,
  };
}

export function failedOutcome(reason: string): DemoOutcome {
  return { ok: false, reasons: [reason], source: null, dest: null, guest: null, console: null };
}

/** The figures, for people. */
export function summaryText({ source, guest, console }: DemoOutcome): string {
  const result = source?.result ?? null;
  if (source === null || result === null || guest === null || console === null) return "";
  const { ram, disks } = source;
  const downtime = formatDuration(result.downtimeMs);
  const silence = formatDuration(console.silenceMs);
  const rows = [
    ["total time", formatDuration(result.totalMs)],
    ["downtime", `${downtime} by the agents' clocks, ${silence} of silence on the console`],
    [
      "on the wire",
      `${formatBytes(result.wireBytes)} for a guest of ${guestSize(guest.atDest.memoryBytes, disks)}`,
    ],
    [
      "not sent",
      `${formatBytes(ram.zeroBytes)} in pages of zeroes, ${formatBytes(ram.unchangedBytes)} unchanged`,
    ],
    ["memory digest", digestText(result.ramDigest)],
    ...disks.flatMap((disk) => [
      [disk.id, diskText(disk)],
      [`${disk.id} digest`, digestText(result.diskDigests[disk.id])],
    ]),
    [
      "console",
      "every sign of life is there once, in order; the kernel has nothing to complain of",
    ],
    ["source", `the guest is ${guest.atSource.state}, its QEMU has ended`],
    ["destination", `the guest is ${guest.atDest.state}, process ${guest.atDest.pid ?? "unknown"}`],
  ];
  return rows.map(([name = "", value = ""]) => `  ${name.padEnd(13)}  ${value}`).join("\n");
}

function guestSize(memoryBytes: number, disks: readonly MigrationDisk[]): string {
  const diskBytes = disks.reduce((sum, { totalBytes }) => sum + (totalBytes ?? 0), 0);
  const memory = formatBytes(memoryBytes);
  return diskBytes === 0 ? memory : `${memory} and its disk of ${formatBytes(diskBytes)}`;
}

function diskText({ copiedBytes, mirroredBytes, zeroBytes, round }: MigrationDisk): string {
  return (
    `${formatBytes(copiedBytes)} copied in ${round} ${round === 1 ? "round" : "rounds"}, ` +
    `${formatBytes(mirroredBytes)} of the guest's writes sent as they came, ` +
    `${formatBytes(zeroBytes)} of zeroes not sent`
  );
}

function digestText(digest: string | null | undefined): string {
  return `${digest?.slice(0, 16) ?? "unknown"}... at both agents`;
}
