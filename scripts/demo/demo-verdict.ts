// Whether the guest went over whole: judged by what both agents say, by what the guest says, and by
// the process table. Empty when all is well.

import type { GuestObject, MigrationObject } from "@vmferry/protocol";
import type { GuestConsole, GuestCounters, GuestReport, HandOverVerdict } from "@vmferry/testkit";

export interface DemoEvidence {
  readonly source: MigrationObject;
  readonly dest: MigrationObject;
  readonly guestAtSource: GuestObject;
  readonly guestAtDest: GuestObject;
  /** Of the QEMU that ran the guest before. */
  readonly sourceQemuEnded: boolean;
  readonly consoles: readonly GuestConsole[];
  readonly handOver: HandOverVerdict;
  readonly before: GuestReport;
  readonly after: GuestReport;
}

const GROWING = ["sequence", "writes", "verified"] as const;
const GROWING_WITH_DISK = [...GROWING, "diskWrites", "diskReads"] as const;

export function findingsOf(evidence: DemoEvidence): string[] {
  return [...agentFindings(evidence), ...diskFindings(evidence), ...guestFindings(evidence)];
}

function agentFindings(evidence: DemoEvidence): string[] {
  const { source, dest, guestAtSource, guestAtDest, sourceQemuEnded } = evidence;
  const findings: string[] = [];
  for (const { role, phase } of [source, dest]) {
    if (phase !== "completed") findings.push(`the ${role} agent says that it ${phase}`);
  }
  const digest = source.result?.ramDigest ?? null;
  if (digest === null || digest !== dest.result?.ramDigest) {
    findings.push(`the memory's digest is ${digest} at one and not at the other agent`);
  }
  if (guestAtSource.state !== "handed-off") {
    findings.push(`at the source the guest is ${guestAtSource.state}`);
  }
  if (guestAtDest.state !== "running") {
    findings.push(`at the destination the guest is ${guestAtDest.state}`);
  }
  if (!sourceQemuEnded) findings.push("the source's QEMU has not ended");
  return findings;
}

function diskFindings({ source, dest, guestAtSource }: DemoEvidence): string[] {
  return guestAtSource.disks.flatMap(({ id }) => {
    const digest = source.result?.diskDigests[id] ?? null;
    if (digest !== null && digest === dest.result?.diskDigests[id]) return [];
    return [`the digest of ${id} is ${digest} at one and not at the other agent`];
  });
}

function guestFindings(evidence: DemoEvidence): string[] {
  const { consoles, handOver, before, after, guestAtSource } = evidence;
  const findings = handOver.findings.map(({ code, detail }) => `${code}: ${detail}`);
  const said = consoles.flatMap(({ errors, kernelComplaints }) => [...errors, ...kernelComplaints]);
  findings.push(...said.map((line) => `the guest says: ${line}`));
  if (after.errors > 0) findings.push(`the guest found ${after.errors} damaged pages`);
  if (after.diskErrors > 0) findings.push(`the guest found ${after.diskErrors} damaged records`);
  if (after.ioErrors > 0) findings.push(`${after.ioErrors} requests to the guest's disk failed`);
  const growing: readonly (keyof GuestCounters)[] =
    guestAtSource.disks.length > 0 ? GROWING_WITH_DISK : GROWING;
  for (const counter of growing) {
    if (after[counter] <= before[counter]) findings.push(`${counter} does not go on`);
  }
  return findings;
}
