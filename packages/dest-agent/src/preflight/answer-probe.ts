/** Whether a guest could come, as far as it can be told without beginning anything. */
import {
  inTime,
  runChecks,
  skips,
  type Finding,
  type GuestRegistry,
  type WitnessPort,
} from "@vmferry/agent";
import { messageOf, type Clock } from "@vmferry/core";
import { limits, type Check, type ControlMessageOf } from "@vmferry/protocol";
import { askQemu, formatQemuVersion, inspectQemuBinary } from "@vmferry/qemu";
import { checkAccelerator } from "./check-accelerator.ts";
import { checkCpuFeatures } from "./check-cpu-features.ts";
import { checkDestSpace } from "./check-dest-space.ts";
import { checkGuestName } from "./check-guest-name.ts";
import { checkImages } from "./check-images.ts";
import { checkMachineType } from "./check-machine-type.ts";
import { checkMemory } from "./check-memory.ts";
import { checkPreparedQemu } from "./check-prepared-qemu.ts";
import { checkSharedDirectory } from "./check-shared-directory.ts";
import { checkSharedImages } from "./check-shared-images.ts";
import {
  probedCpu,
  probedDisks,
  type EarlierAttempt,
  type Probe,
  type ProbedDisk,
} from "./probed-guest.ts";

/** The source waits a little longer for the answer. */
const CHECK_MS_MAX = 4500;
const PREPARED = "A QEMU was prepared for this guest.";
const EARLIER = "An earlier attempt of this guest is still here, and gives way to the next one.";

export interface ProbePorts {
  readonly registry: Pick<GuestRegistry, "isArriving" | "prepared" | "refuseName" | "refuseMemory">;
  readonly earlier: EarlierAttempt;
  readonly witness: Pick<WitnessPort, "sees"> | null;
  readonly qemu: string;
  readonly imageDir: string;
  readonly clock: Clock;
}

type Look = () => Finding | Promise<Finding>;

/** Never rejects. */
export async function answerProbe(
  { registry, earlier, witness, qemu, imageDir, clock }: ProbePorts,
  probe: Probe,
): Promise<ControlMessageOf<"probe-result">> {
  const { probeId } = probe;
  const binary = inspectQemuBinary(qemu);
  const answers = binary.then(({ path }) => askQemu(path, probe.accel));
  const prepared = registry.prepared(probe.guest.name);
  const isArriving = earlier.isOpen || registry.isArriving(probe.guest.name);
  /** Of a QEMU that would be launched. */
  const ofLaunch =
    (check: Look): Look =>
    () =>
      prepared === null ? check() : skips(PREPARED);
  /** What an earlier attempt takes is free when an offer is judged. */
  const ofRoom = (check: Look): Look => ofLaunch(() => (isArriving ? skips(EARLIER) : check()));
  const ofDisks =
    (check: (disks: readonly ProbedDisk[]) => Promise<Finding>) => (): Promise<Finding> =>
      check(probedDisks(probe));
  const limit = { clock, msMax: CHECK_MS_MAX };
  const [checks, postCopyRefusal, qemuVersion] = await Promise.all([
    runChecks(
      {
        "machine-type": ofLaunch(() => checkMachineType(probe, qemu)),
        accelerator: ofLaunch(() => checkAccelerator(probe)),
        "cpu-features": async () => checkCpuFeatures(probedCpu(probe), await answers),
        "prepared-qemu": () => checkPreparedQemu(probe, prepared),
        "guest-name": ofRoom(() => checkGuestName(probe.guest.name, registry)),
        memory: ofRoom(() => checkMemory(probe, registry)),
        "dest-space": ofRoom(ofDisks((disks) => checkDestSpace(disks, imageDir))),
        images: ofRoom(ofDisks((disks) => checkImages(disks, imageDir))),
        "shared-images": ofDisks((disks) => checkSharedImages(disks, { imageDir, probeId })),
        "shared-directory": () => checkSharedDirectory(probe, witness),
      },
      limit,
    ),
    prepared?.object.attached?.postCopyRefusal ??
      inTime(answers, limit).then((asked) => asked.postCopyRefusal, messageOf),
    inTime(binary, limit).then(
      ({ version }) => formatQemuVersion(version),
      () => "",
    ),
  ]);
  return {
    kind: "probe-result",
    qemuVersion,
    postCopyRefusal: cut(postCopyRefusal),
    checks: checks.map(fitting),
    // When it is sent: the source compares it with the moment that it arrives.
    dateMs: clock.date().getTime(),
  };
}

/** Texts are for people: those that are too long are cut. */
function fitting({ name, status, detail, hint }: Check): Check {
  return { name, status, detail: cut(detail), hint: hint === null ? null : cut(hint) };
}

function cut(text: string): string {
  const { PROBE_TEXT_LENGTH_MAX } = limits;
  if (text.length <= PROBE_TEXT_LENGTH_MAX) return text.toWellFormed();
  return `${text.slice(0, PROBE_TEXT_LENGTH_MAX - 1)}…`.toWellFormed();
}
