// The two agents as their users have them: processes on two hosts, steered over HTTP.

import { randomBytes } from "node:crypto";
import { isFinalPhase, type MigrationObject } from "@vmferry/protocol";
import {
  Lab,
  type AgentProcess,
  type ApiClient,
  type GuestConsole,
  type LabOptions,
} from "@vmferry/testkit";
import type { BenchGuest } from "./cases.ts";
import {
  MIB,
  waitUntilAtWork,
  type Method,
  type Move,
  type MoveEnd,
  type MoveSetup,
} from "./move.ts";

const WAIT_MS = 600_000;
const PROFILE_INTERVAL_US = 500;
const DISK_IMAGE = "demo.raw";

export const VMFERRY: Method = { name: "vmferry", native: false, prepare: prepareVmferry };

async function prepareVmferry(setup: MoveSetup): Promise<Move> {
  const { benchCase, closers } = setup;
  const lab = await Lab.open(labOptions(setup));
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
    begin: async () => {
      // As QEMU's own migration is configured here, a guest is not slowed down to get it across.
      const request = { guest: "demo", destination: "dest", onStall: "cancel" };
      ({ id } = await lab.source.api.migrate(request));
    },
    ended: async () => {
      try {
        return moveEnd(await waitForEnd(lab.source.api, id));
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
