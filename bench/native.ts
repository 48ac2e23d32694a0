// QEMU's own migration: from one QEMU to the other over TCP, without anybody in between.
//
// Both are started as the agents start theirs. The destination is told to run as soon as it can,
// as people do who give no -S; and it waits already when the clock starts to run. Both are to the
// advantage of QEMU's own migration.

import { randomUUID } from "node:crypto";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { launchGuest, type GuestDefinition, type GuestProcess } from "@vmferry/qemu";
import { GUEST_CACHE } from "@vmferry/testkit";
import type { BenchGuest } from "./cases.ts";
import { followConsole, waitUntilAtWork, type Method } from "./move.ts";
import type { Move, MoveEnd, MoveSetup } from "./move.ts";
import type { BenchHost } from "./network.ts";
import { RawQmp, type RawQmpEvent } from "./raw-qmp.ts";

const MIGRATION_PORT = 4444;
const QEMU_START_MS_MAX = 30_000;
const DOWNTIME_MS_MAX = 300;
const UNLIMITED_BYTES_PER_SECOND = 2 ** 50;
const FINAL_STATUS = ["completed", "failed", "cancelled"];

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

function nativeMethod(name: string, mode: NativeMode): Method {
  return { name, native: true, prepare: (setup) => prepareNative(mode, setup) };
}

async function prepareNative(mode: NativeMode, setup: MoveSetup): Promise<Move> {
  const { benchCase, network, closers } = setup;
  const definition = defineGuest(benchCase.guest);
  const source = await startQemu(setup, { definition, role: "source" });
  const dest = await startQemu(setup, { definition, role: "dest" });
  for (const { qmp } of [source, dest]) await configure(qmp, mode);
  const uri = `tcp:${network.dest.dataAddress}:${MIGRATION_PORT}`;
  await dest.qmp.execute("migrate-incoming", { uri });
  // For a QEMU that waits for a guest, `cont` means: run when it has come.
  await dest.qmp.execute("cont");
  const sourceConsole = followConsole(source.guest.paths.serialLog, closers);
  await waitUntilAtWork(sourceConsole);
  const final = source.qmp.waitFor(isFinal);
  return {
    source: sourceConsole,
    dest: followConsole(dest.guest.paths.serialLog, closers),
    agents: [],
    begin: async () => {
      await source.qmp.execute("migrate", { uri });
    },
    ended: async () => moveEnd(source.qmp, await final),
    cancel: async () => {
      await source.qmp.execute("migrate_cancel");
    },
  };
}

/** The demo guest as the lab of the tests defines it. */
function defineGuest({ memoryMib, workload }: BenchGuest): GuestDefinition {
  const parameters = Object.entries(workload).map(([key, value]) => `vmferry.${key}=${value}`);
  return {
    name: "demo",
    machine: "pc-q35-10.0",
    accel: "auto",
    cpu: "qemu64",
    vcpus: 1,
    memoryBytes: memoryMib * 1024 * 1024,
    boot: {
      kernel: "vmlinuz",
      initrd: "initrd.img",
      cmdline: ["console=ttyS0 quiet panic=-1", ...parameters].join(" "),
    },
    disks: [],
    serial: "file",
    uuid: randomUUID(),
  };
}

async function startQemu(
  setup: MoveSetup,
  start: { readonly definition: GuestDefinition; readonly role: "source" | "dest" },
): Promise<NativeQemu> {
  const { definition, role } = start;
  const binary = await writeStarter(setup, setup.network[role], role);
  const guest = await launchGuest({
    binary,
    definition,
    directory: join(setup.directory, role),
    imageDirectory: GUEST_CACHE,
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

/** A program that becomes QEMU on the given host. */
async function writeStarter(setup: MoveSetup, host: BenchHost, role: string): Promise<string> {
  const path = join(setup.directory, `${role}-qemu`);
  await writeFile(path, `#!/bin/sh\nexec ${host.enter.join(" ")} '${setup.qemu}' "$@"\n`);
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

function isFinal({ event, data }: RawQmpEvent): boolean {
  return event === "MIGRATION" && FINAL_STATUS.includes(String(data?.["status"]));
}

async function moveEnd(qmp: RawQmp, { data }: RawQmpEvent): Promise<MoveEnd> {
  const reported = (await qmp.execute("query-migrate")) as Readonly<Record<string, unknown>>;
  const status = String(data?.["status"]);
  if (status === "completed") return { kind: "completed", reported };
  const reason = reported["error-desc"];
  return { kind: "failed", reason: typeof reason === "string" ? reason : `QEMU: ${status}` };
}
