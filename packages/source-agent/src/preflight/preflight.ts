/**
 * What is looked at before a migration, at both ends and all at once. Nothing is begun by it, and
 * the answers promise nothing: whatever refuses a migration later still does.
 */
import { randomUUID } from "node:crypto";
import { inTime, runChecks, type Logger, type WitnessPort } from "@vmferry/agent";
import type { Clock } from "@vmferry/core";
import type { Check, ControlMessageOf, MigrationRequest } from "@vmferry/protocol";
import type { Dialer, PeerAddress } from "../adapters/peer-dialer.ts";
import { blockBytesFor } from "../disk/block-size.ts";
import type { Identity } from "../session/control-link.ts";
import { askPeer } from "./ask-peer.ts";
import { checkAccess } from "./check-access.ts";
import { checkClock } from "./check-clock.ts";
import { checkCpuModel } from "./check-cpu-model.ts";
import { checkDestination } from "./check-destination.ts";
import { checkDevices } from "./check-devices.ts";
import { checkDisks } from "./check-disks.ts";
import { checkFallback } from "./check-fallback.ts";
import { checkLink } from "./check-link.ts";
import { checkPostCopy } from "./check-post-copy.ts";
import { checkProtocol } from "./check-protocol.ts";
import { checkQemuVersion } from "./check-qemu-version.ts";
import { checkSourceSpace } from "./check-source-space.ts";
import { checkTls } from "./check-tls.ts";
import { measureDisks, type MeasuredDisk } from "./measure-disks.ts";
import type { PeerAnswer } from "./peer-answer.ts";
import type { PreflightGuest } from "./preflight-guest.ts";
import { leaveProofs, type ProbeProofs } from "./probe-proofs.ts";

const CHECK_MS_MAX = 5000;
const REMOVE_MS_MAX = 1000;

export interface PreflightPorts {
  readonly dialer: Pick<Dialer, "control">;
  readonly address: PeerAddress;
  readonly identity: Identity;
  readonly witness: Pick<WitnessPort, "prove" | "forget"> | null;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly runDir: string;
  readonly memoryDir: string;
  readonly imageDir: string;
}

/** Never rejects. */
export async function preflight(
  request: MigrationRequest,
  guest: PreflightGuest,
  ports: PreflightPorts,
): Promise<Check[]> {
  const { address, clock, imageDir } = ports;
  const { definition } = guest;
  const limit = { clock, msMax: CHECK_MS_MAX };
  const disks = measureDisks(definition.disks, imageDir);
  const { memoryBytes } = definition;
  const [answer, ofSource] = await Promise.all([
    askAbout(guest, disks, ports),
    runChecks(
      {
        "cpu-model": () => checkCpuModel(guest),
        devices: () => checkDevices(guest),
        disks: () => checkDisks(disks),
        "source-space": () => checkSourceSpace({ ...ports, disks, memoryBytes, request }),
      },
      limit,
    ),
  ]);
  const ofBoth = await runChecks(
    {
      link: () => checkLink(answer, request.limits.downtimeMsMax),
      tls: () => checkTls(answer, address, clock.date()),
      access: () => checkAccess(answer, address),
      protocol: () => checkProtocol(answer),
      "qemu-version": () => checkQemuVersion(guest, answer),
      clock: () => checkClock(answer),
      destination: () => checkDestination(answer),
      "post-copy": () => checkPostCopy(request, answer),
      fallback: () => checkFallback(request, answer),
    },
    limit,
  );
  return [...ofBoth, ...ofSource, ...(answer.kind === "answered" ? answer.result.checks : [])];
}

async function askAbout(
  guest: PreflightGuest,
  disks: Promise<readonly MeasuredDisk[]>,
  ports: PreflightPorts,
): Promise<PeerAnswer> {
  const { clock, logger } = ports;
  const probeId = randomUUID();
  const leaving = disks.then((measured) => leaveProofs({ ...ports, probeId, disks: measured }));
  const probe = Promise.all([disks, leaving]).then(([measured, proofs]) =>
    probeOf(guest, { probeId, measured, proofs }),
  );
  // Where the dest cannot be reached nobody waits for it.
  probe.catch(() => undefined);
  try {
    return await askPeer(ports, probe);
  } finally {
    // A share that does not answer is not waited for; they go when it does.
    const removed = leaving.then((proofs) => proofs.remove());
    await inTime(removed, { clock, msMax: REMOVE_MS_MAX }).catch((error: unknown) => {
      logger.debug({ err: error }, "proofs were not left, or are not removed yet");
    });
  }
}

function probeOf(
  { definition, accel, attachment }: PreflightGuest,
  {
    probeId,
    measured,
    proofs,
  }: {
    readonly probeId: string;
    readonly measured: readonly MeasuredDisk[];
    readonly proofs: ProbeProofs;
  },
): ControlMessageOf<"probe"> {
  const launchRefusal = attachment?.launchRefusal ?? "";
  return {
    kind: "probe",
    probeId,
    // As the schema of the message has it: a plain copy.
    guest: { ...definition, disks: definition.disks.map((disk) => ({ ...disk })) },
    accel,
    disks: measured.map(({ sizeBytes, dataBytes }, index) => ({
      sizeBytes,
      dataBytes,
      blockBytes: blockBytesFor(sizeBytes),
      proof: proofs.disks[index] ?? null,
    })),
    witness: proofs.witness,
    ...(launchRefusal === "" ? {} : { launchRefusal }),
  };
}
