// The two agents as their users have them: processes on two hosts, steered over HTTP.

import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { isFinalPhase, type MigrationObject } from "@vmferry/protocol";
import {
  Lab,
  type AgentProcess,
  type ApiClient,
  type GuestConsole,
  type LabOptions,
  type LogLine,
} from "@vmferry/testkit";
import type { BenchGuest } from "./cases.ts";
import {
  faultLogOf,
  MIB,
  waitUntilAtWork,
  type Method,
  type Move,
  type MoveEnd,
  type MoveSetup,
} from "./move.ts";
import { writeTracedQemu } from "./traced-qemu.ts";

const WAIT_MS = 600_000;
const PROFILE_INTERVAL_US = 500;
const DISK_IMAGE = "demo.raw";

/** As QEMU's own migration is configured here, a guest is not slowed down to get it across. */
export const VMFERRY = vmferryMethod("vmferry", { onStall: "cancel" });

export const VMFERRY_POSTCOPY: Method = {
  ...vmferryMethod("vmferry post-copy", { mode: "post-copy" }),
  postcopy: true,
};

/** Nobody asks for post-copy: it begins when pre-copy is seen to gain nothing. */
export const VMFERRY_STALL: Method = {
  ...vmferryMethod("vmferry onStall", { onStall: "post-copy" }),
  postcopy: true,
};

function vmferryMethod(name: string, request: object): Method {
  return { name, native: false, prepare: (setup) => prepareVmferry(request, setup) };
}

async function prepareVmferry(request: object, setup: MoveSetup): Promise<Move> {
  const { benchCase, closers } = setup;
  const options = labOptions(setup);
  const lab = await Lab.open(benchCase.postcopy === true ? await traced(options, setup) : options);
  closers.add(() => lab.close());
  if (setup.profileDirectory !== null) closers.add(() => endGently([lab.source, lab.dest]));
  setup.signal.throwIfAborted();
  const source = await bootGuest(lab, benchCase.guest);
  await waitUntilAtWork(source);
  let id = "";
  return {
    source,
    dest: lab.follow(lab.destSerialLog()),
    agents: [lab.source, lab.dest].map(({ role, pid }) => ({ role, pid })),
    faultLog: benchCase.postcopy === true ? faultLogOf(setup) : null,
    begin: async () => {
      const where = { guest: "demo", destination: "dest" };
      ({ id } = await lab.source.api.migrate({ ...where, ...request }));
    },
    ended: async () => {
      try {
        const end = moveEnd(await waitForEnd(lab.source.api, id));
        if (end.kind !== "completed" || benchCase.postcopy !== true) return end;
        const { faults } = await waitForEnd(lab.dest.api, id);
        return { ...end, reported: { ...end.reported, faults, log: timesOf(lab) } };
      } catch (error) {
        setup.signal.throwIfAborted();
        process.stderr.write(`${lab.source.logText}\n${lab.dest.logText}\n`);
        throw error;
      }
    },
    cancel: async () => {
      await lab.source.api.cancel(id);
    },
  };
}

/** What was when, to see where the time of a hand-over goes. */
function timesOf({ source, dest }: Lab): readonly LogLine[] {
  return [source, dest].flatMap(({ role, log }) =>
    log.map(({ time, msg, phase, ownership, record }) => ({
      ...{ role, time, msg, phase, ownership, record },
    })),
  );
}

async function bootGuest(lab: Lab, guest: BenchGuest): Promise<GuestConsole> {
  const { memoryMib, workload, disk } = guest;
  if (disk === undefined) return lab.bootGuest({ memoryMib, workload });
  await lab.makeDisk(DISK_IMAGE, disk.sizeMib * MIB, { fill: disk.fill });
  const disks = [{ id: "disk0", image: DISK_IMAGE }];
  return lab.bootGuest({ memoryMib, workload, disks });
}

async function waitForEnd(api: ApiClient, id: string): Promise<MigrationObject> {
  for (;;) {
    const migration = await api.wait(id, WAIT_MS);
    if (isFinalPhase(migration.phase)) return migration;
  }
}

function labOptions({ network, qemu, profileDirectory }: MoveSetup): LabOptions {
  const { source, dest } = network;
  const environment = {
    VMFERRY_API_TOKEN: randomBytes(16).toString("hex"),
    VMFERRY_PEER_TOKEN: randomBytes(16).toString("hex"),
    VMFERRY_INSECURE: "1",
    VMFERRY_QEMU: qemu,
    ...(profileDirectory === null ? {} : { NODE_OPTIONS: profileOptions(profileDirectory) }),
  };
  return {
    source: {
      wrapper: source.enter,
      environment,
      flags: ["--api-listen", `${source.apiAddress}:0`],
    },
    dest: {
      wrapper: dest.enter,
      environment,
      flags: [
        ...["--api-listen", `${dest.apiAddress}:0`],
        ...["--peer-listen", `${dest.dataAddress}:0`],
      ],
    },
    peerUrl: (port) => `ws://${dest.dataAddress}:${port}`,
  };
}

async function traced(options: LabOptions, setup: MoveSetup): Promise<LabOptions> {
  const path = join(setup.directory, "traced-qemu");
  await writeTracedQemu(path, { qemu: setup.qemu, logPath: faultLogOf(setup) });
  const environment = { ...options.dest?.environment, VMFERRY_QEMU: path };
  return { ...options, dest: { ...options.dest, environment } };
}

function profileOptions(directory: string): string {
  return `--cpu-prof --cpu-prof-dir=${directory} --cpu-prof-interval=${PROFILE_INTERVAL_US}`;
}

/** A killed process writes no profile. */
async function endGently(agents: readonly AgentProcess[]): Promise<void> {
  await Promise.all(agents.map((agent) => agent.stop()));
}

function moveEnd({ phase, phases, disks, result, error }: MigrationObject): MoveEnd {
  if (phase === "completed") return { kind: "completed", reported: { ...result, disks, phases } };
  const reason = `${error?.code ?? phase}: ${error?.detail ?? "no reason"}`;
  if (error?.code === "not-converging") return { kind: "did-not-converge", reason };
  return { kind: "failed", reason };
}
