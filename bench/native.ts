// QEMU's own migration: from one QEMU to the other over TCP, without anybody in between.
//
// Both are started as the agents start theirs. The destination is told to run as soon as it can,
// as people do who give no -S; and it waits already when the clock starts to run. Both are to the
// advantage of QEMU's own migration. A guest's disk goes its own way, native-disk.ts.

import { randomUUID } from "node:crypto";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  launchGuest,
  type DiskBacking,
  type GuestDefinition,
  type GuestProcess,
} from "@vmferry/qemu";
import { GUEST_CACHE } from "@vmferry/testkit";
import type { BenchCase, BenchGuest } from "./cases.ts";
import { faultLogOf, followConsole, MIB, waitUntilAtWork, type Method } from "./move.ts";
import type { Move, MoveEnd, MoveSetup } from "./move.ts";
import { DISK_ID, makeDiskImages, prepareMirroredMigration } from "./native-disk.ts";
import { preparePlainMigration, statusOf } from "./native-migration.ts";
import type { NativeMigration, NativePair } from "./native-migration.ts";
import { POSTCOPY_CAPABILITIES, preparePostcopyMigration } from "./native-postcopy.ts";
import type { BenchHost } from "./network.ts";
import { RawQmp, type RawQmpEvent } from "./raw-qmp.ts";
import { writeTracedQemu } from "./traced-qemu.ts";

const QEMU_START_MS_MAX = 30_000;
const DOWNTIME_MS_MAX = 300;
const UNLIMITED_BYTES_PER_SECOND = 2 ** 50;

interface NativeMode {
  readonly capabilities: readonly string[];
  readonly parameters: Readonly<Record<string, string | number>>;
}

interface NativeQemu {
  readonly guest: GuestProcess;
  readonly qmp: RawQmp;
}

/** QEMU's plain pre-copy: one connection, nothing compressed. */
export const NATIVE_PLAIN = nativeMethod("native plain", { capabilities: [], parameters: {} });

/** As many channels as QEMU has by default, and as the reference machine has cores. */
export const NATIVE_MULTIFD = nativeMethod("native multifd+zstd", {
  capabilities: ["multifd"],
  parameters: { "multifd-channels": 2, "multifd-compression": "zstd", "multifd-zstd-level": 1 },
});

/** QEMU's post-copy, with a channel for pages that are asked for. */
export const NATIVE_POSTCOPY: Method = {
  ...nativeMethod("native post-copy", { capabilities: POSTCOPY_CAPABILITIES, parameters: {} }),
  postcopy: true,
};

function nativeMethod(name: string, mode: NativeMode): Method {
  return { name, native: true, prepare: (setup) => prepareNative(mode, setup) };
}

async function prepareNative(mode: NativeMode, setup: MoveSetup): Promise<Move> {
  const { benchCase, network, closers } = setup;
  const { disk } = benchCase.guest;
  const definition = defineGuest(benchCase.guest);
  const images = disk === undefined ? null : await makeDiskImages(setup.directory, disk);
  const source = await startQemu(setup, { definition, role: "source", image: images?.source });
  const dest = await startQemu(setup, { definition, role: "dest", image: images?.dest });
  for (const { qmp } of [source, dest]) await configure(qmp, mode);
  const pair = { source: source.qmp, dest: dest.qmp, destAddress: network.dest.dataAddress };
  const migration = await prepareMigration(benchCase, pair);
  const sourceConsole = followConsole(source.guest.paths.serialLog, closers);
  await waitUntilAtWork(sourceConsole);
  return {
    source: sourceConsole,
    dest: followConsole(dest.guest.paths.serialLog, closers),
    agents: [],
    faultLog: benchCase.postcopy === true ? faultLogOf(setup) : null,
    begin: () => migration.begin(),
    ended: async () => moveEnd(source.qmp, await migration.ended()),
    cancel: () => migration.cancel(),
  };
}

function prepareMigration(benchCase: BenchCase, pair: NativePair): Promise<NativeMigration> {
  if (benchCase.postcopy === true) return preparePostcopyMigration(pair);
  const { disk } = benchCase.guest;
  return disk === undefined ? preparePlainMigration(pair) : prepareMirroredMigration(pair);
}

/** The demo guest as the lab of the tests defines it. */
function defineGuest({ memoryMib, workload, disk }: BenchGuest): GuestDefinition {
  const parameters = Object.entries(workload).map(([key, value]) => `vmferry.${key}=${value}`);
  return {
    name: "demo",
    machine: "pc-q35-10.0",
    accel: "auto",
    cpu: "qemu64",
    vcpus: 1,
    memoryBytes: memoryMib * MIB,
    boot: {
      kernel: "vmlinuz",
      initrd: "initrd.img",
      cmdline: ["console=ttyS0 quiet panic=-1", ...parameters].join(" "),
    },
    disks:
      disk === undefined ? [] : [{ id: DISK_ID, image: "demo.raw", format: "raw", mode: "copy" }],
    serial: "file",
    uuid: randomUUID(),
  };
}

async function startQemu(
  setup: MoveSetup,
  start: {
    readonly definition: GuestDefinition;
    readonly role: "source" | "dest";
    /** The path of its disk's. */
    readonly image: string | undefined;
  },
): Promise<NativeQemu> {
  const { definition, role, image } = start;
  const binary = await writeStarter(setup, setup.network[role], role);
  const guest = await launchGuest({
    binary,
    definition,
    directory: join(setup.directory, role),
    imageDirectory: GUEST_CACHE,
    diskBackings: backingsOf(image),
    incoming: role === "dest",
    timeoutMs: QEMU_START_MS_MAX,
    signal: setup.signal,
  });
  setup.closers.add(async () => {
    await guest.kill();
  });
  // QEMU talks to one at a time.
  await guest.qmp.close();
  const qmp = await RawQmp.connect(guest.paths.qmpSocket);
  setup.closers.add(() => {
    qmp.close();
    return Promise.resolve();
  });
  return { guest, qmp };
}

function backingsOf(image: string | undefined): ReadonlyMap<string, DiskBacking> {
  return image === undefined ? new Map() : new Map([[DISK_ID, { kind: "file", path: image }]]);
}

/** A program that becomes QEMU on the given host. */
async function writeStarter(setup: MoveSetup, host: BenchHost, role: string): Promise<string> {
  const path = join(setup.directory, `${role}-qemu`);
  let { qemu } = setup;
  if (setup.benchCase.postcopy === true) {
    qemu = join(setup.directory, "traced-qemu");
    await writeTracedQemu(qemu, { qemu: setup.qemu, logPath: faultLogOf(setup) });
  }
  await writeFile(path, `#!/bin/sh\nexec ${host.enter.join(" ")} '${qemu}' "$@"\n`);
  await chmod(path, 0o700);
  return path;
}

async function configure(qmp: RawQmp, { capabilities, parameters }: NativeMode): Promise<void> {
  const names = ["events", "return-path", ...capabilities];
  await qmp.execute("migrate-set-capabilities", {
    capabilities: names.map((capability) => ({ capability, state: true })),
  });
  await qmp.execute("migrate-set-parameters", {
    "max-bandwidth": UNLIMITED_BYTES_PER_SECOND,
    "downtime-limit": DOWNTIME_MS_MAX,
    ...parameters,
  });
}

async function moveEnd(qmp: RawQmp, last: RawQmpEvent): Promise<MoveEnd> {
  const reported = (await qmp.execute("query-migrate")) as Readonly<Record<string, unknown>>;
  const status = statusOf(last) ?? "unknown";
  if (status === "completed") return { kind: "completed", reported };
  const reason = reported["error-desc"];
  return { kind: "failed", reason: typeof reason === "string" ? reason : `QEMU: ${status}` };
}
