import { setTimeout as delay } from "node:timers/promises";
import type { Check } from "../api/check.ts";
import { messageOf } from "../cli-error.ts";
import type { LocalContext } from "../command-context.ts";
import { checkAcceleration } from "../doctor/check-acceleration.ts";
import { checkAgent } from "../doctor/check-agent.ts";
import { checkCertificates } from "../doctor/check-certificates.ts";
import { checkClock } from "../doctor/check-clock.ts";
import { checkDirectory } from "../doctor/check-directory.ts";
import { checkDiskSpace } from "../doctor/check-disk-space.ts";
import { checkPostCopy } from "../doctor/check-post-copy.ts";
import { checkQemu } from "../doctor/check-qemu.ts";
import { checkSharedDirectory } from "../doctor/check-shared-directory.ts";
import { fails, type Finding } from "../doctor/finding.ts";
import { EXIT_CODE, type ExitCode } from "../exit-code.ts";
import { renderChecks } from "../render/check-list.ts";

const CHECK_MS_MAX = 20_000;
const LATE_HINT = "Look for a file system or a program there that does not answer any more.";

export interface DoctorSettings {
  readonly qemu: string;
  readonly stateDir?: string;
  readonly imageDir?: string;
  readonly sharedDir?: string;
  readonly tlsDir?: string;
  /** URLs of APIs that have to answer. */
  readonly agents: readonly string[];
  /** Where no agent is named: this one is looked for, but it need not have been started. */
  readonly api: string;
  readonly token: string | null;
}

type NamedCheck = readonly [name: string, examine: () => Promise<Finding>];

export async function doctor(
  { stdout }: LocalContext,
  settings: DoctorSettings,
  json: boolean,
): Promise<ExitCode> {
  const checks = await Promise.all(checksFor(settings).map(carryOut));
  stdout.write(json ? `${JSON.stringify({ checks })}\n` : renderChecks(checks));
  return checks.some(({ status }) => status === "fail") ? EXIT_CODE.failed : EXIT_CODE.ok;
}

function checksFor(settings: DoctorSettings): NamedCheck[] {
  const { qemu, stateDir, imageDir, sharedDir, tlsDir } = settings;
  const stateSetting = "--state-dir or VMFERRY_STATE_DIR";
  const imageSetting = "--image-dir or VMFERRY_IMAGE_DIR";
  return [
    ["qemu", () => checkQemu(qemu)],
    ["acceleration", () => checkAcceleration()],
    ["post-copy", () => checkPostCopy(qemu)],
    ["state-dir", () => checkDirectory({ path: stateDir, setting: stateSetting, isPrivate: true })],
    [
      "image-dir",
      () => checkDirectory({ path: imageDir, setting: imageSetting, isPrivate: false }),
    ],
    ["disk-space", () => checkDiskSpace([stateDir, imageDir])],
    ["shared-dir", () => checkSharedDirectory(sharedDir)],
    ["certificates", () => checkCertificates(tlsDir)],
    ["clock", () => checkClock()],
    ...agentChecks(settings),
  ];
}

function agentChecks({ agents, api, token }: DoctorSettings): NamedCheck[] {
  const mayBeAbsent = agents.length === 0;
  return (mayBeAbsent ? [api] : agents).map((url) => [
    `agent ${url}`,
    () => checkAgent({ url, token, mayBeAbsent }),
  ]);
}

/** A file system that does not answer is what is looked for here: nothing is waited for for ever. */
async function carryOut([name, examine]: NamedCheck): Promise<Check> {
  const late = delay(CHECK_MS_MAX, fails("no answer in time", LATE_HINT), { ref: false });
  try {
    return { name, ...(await Promise.race([examine(), late])) };
  } catch (error) {
    return { name, ...fails(messageOf(error), "This is not what the check expected.") };
  }
}
