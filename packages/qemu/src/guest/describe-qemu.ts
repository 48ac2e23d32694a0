// What a QEMU says of itself and its guest, where nobody here has started it. Queries alone: the guest
// does not notice.

import { codeOf } from "@vmferry/core";
import type { QmpClient } from "../qmp/qmp-client.ts";
import type { BlockDevice, PciDevice, QueryStatus } from "../qmp/qmp-results.ts";
import type { MigrationStatus } from "../qmp/query-migrate.ts";
import type { Accelerator } from "./guest-definition.ts";

/** A disk of the guest, and what its device stands on. */
export interface DescribedDisk {
  /** By which QEMU mirrors it: the name of its node, or of its backend. Empty where it has neither. */
  readonly id: string;
  readonly driver: string;
  /** As QEMU was told it; `json:…` where that was more than a path. */
  readonly filename: string;
  readonly sizeBytes: number;
  /** Where its device is among QEMU's objects; null where it has none. */
  readonly device: string | null;
}

export interface DescribedDevice {
  readonly id: string;
  /** QEMU's name of the kind of device. */
  readonly type: string;
}

export interface DescribedQemu {
  readonly status: QueryStatus;
  readonly migration: MigrationStatus;
  /** Why QEMU would refuse to migrate it; empty where it would not. */
  readonly blockedReasons: readonly string[];
  /** Migration capabilities that are on. */
  readonly capabilities: readonly string[];
  readonly name: string | null;
  /** Null where it has none of its own. */
  readonly uuid: string | null;
  readonly machine: string;
  readonly accel: Accelerator;
  readonly cpuModel: string;
  /** Of the first processor: asks for one of its features; null where there is none of that name. */
  readonly cpuFeature: (name: string) => Promise<boolean | null>;
  readonly vcpus: number;
  readonly memoryBytes: number;
  readonly pluggedBytes: number;
  /** Paths as on its command line; empty without. */
  readonly kernel: string;
  readonly initrd: string;
  readonly cmdline: string;
  /** Those that the guest can write to, the firmware's variables apart. */
  readonly disks: readonly DescribedDisk[];
  /** Block devices that hold nothing of the guest's own: without a medium, or read-only. */
  readonly otherDrives: readonly string[];
  readonly pci: readonly PciDevice[];
  /** What somebody has asked for with `-device`. */
  readonly devices: readonly DescribedDevice[];
  readonly serialPorts: number;
  /** By which name the guest's memory goes in a migration stream. */
  readonly memoryName: string;
}

const NO_UUID = "00000000-0000-0000-0000-000000000000";
const MACHINE = "/machine";

export async function describeQemu(qmp: QmpClient): Promise<DescribedQemu> {
  const [cpu] = await qmp.execute("query-cpus-fast");
  const cpuPath = cpu?.qomPath ?? MACHINE;
  const uuid = await qmp.execute("query-uuid");
  const memory = await qmp.execute("query-memory-size-summary");
  const { status: migration, blockedReasons } = await qmp.execute("query-migrate");
  const capabilities = await qmp.execute("query-migrate-capabilities");
  const peripheral = await childrenOf(qmp, "/machine/peripheral");
  const anonymous = await childrenOf(qmp, "/machine/peripheral-anon");
  const unattached = await childrenOf(qmp, "/machine/unattached");
  const devices = [...peripheral, ...anonymous];
  return {
    status: await qmp.execute("query-status"),
    ...{ migration, blockedReasons },
    capabilities: [...capabilities].filter(([, on]) => on).map(([name]) => name),
    name: await qmp.execute("query-name"),
    uuid: uuid === NO_UUID ? null : uuid.toLowerCase(),
    machine: (await textOf(qmp, MACHINE, "type")).replace(/-machine$/, ""),
    accel: (await qmp.execute("query-kvm")).enabled ? "kvm" : "tcg",
    cpuModel: (await textOf(qmp, cpuPath, "type")).replace(/-(x86_64|i386)-cpu$/, ""),
    cpuFeature: async (name) => {
      const value = await propertyOf(qmp, cpuPath, name);
      return typeof value === "boolean" ? value : null;
    },
    vcpus: (await qmp.execute("query-cpus-fast")).length,
    memoryBytes: memory.baseBytes + memory.pluggedBytes,
    pluggedBytes: memory.pluggedBytes,
    kernel: await textOf(qmp, MACHINE, "kernel"),
    initrd: await textOf(qmp, MACHINE, "initrd"),
    cmdline: await textOf(qmp, MACHINE, "append"),
    ...drivesOf(await qmp.execute("query-block")),
    pci: await qmp.execute("query-pci"),
    devices,
    serialPorts: [...devices, ...unattached].filter(({ type }) => type === "isa-serial").length,
    memoryName: await memoryNameOf(qmp),
  };
}

function drivesOf(devices: readonly BlockDevice[]): Pick<DescribedQemu, "disks" | "otherDrives"> {
  // The firmware's variables are part of the guest's memory, and travel with it.
  const drives = devices.filter(({ qdev }) => !/^\/machine\/system\.flash\d/.test(qdev ?? ""));
  const disks: DescribedDisk[] = [];
  const otherDrives: string[] = [];
  for (const { name, qdev, node } of drives) {
    const device = qdev?.replace(/\/virtio-backend$/, "") ?? null;
    // A backend that no device uses is nothing that the guest sees.
    if (device === null && node === null) continue;
    if (node === null || node.readOnly) {
      otherDrives.push(device ?? name);
      continue;
    }
    const { nodeName, driver, filename, virtualBytes: sizeBytes } = node;
    // QEMU's own names for nodes, as `#block123`, are for nobody to use.
    const id = nodeName.startsWith("#") ? name : nodeName;
    disks.push({ id, driver, filename, sizeBytes, device });
  }
  return { disks, otherDrives };
}

async function childrenOf(qmp: QmpClient, path: string): Promise<DescribedDevice[]> {
  const members = await qmp.execute("qom-list", { path });
  return members.flatMap(({ name, type }) => {
    const kind = /^child<(.+)>$/.exec(type)?.[1];
    return kind === undefined ? [] : [{ id: name, type: kind }];
  });
}

async function memoryNameOf(qmp: QmpClient): Promise<string> {
  const path = await textOf(qmp, MACHINE, "memory-backend");
  if (path === "") return "pc.ram";
  const isWhole = await propertyOf(qmp, path, "x-use-canonical-path-for-ramblock-id");
  return isWhole === true ? path : path.slice(path.lastIndexOf("/") + 1);
}

/** Empty where there is no such text. */
async function textOf(qmp: QmpClient, path: string, property: string): Promise<string> {
  const value = await propertyOf(qmp, path, property);
  return typeof value === "string" ? value : "";
}

async function propertyOf(
  qmp: QmpClient,
  path: string,
  property: string,
): Promise<string | boolean | number | null> {
  try {
    return await qmp.execute("qom-get", { path, property });
  } catch (error) {
    if (codeOf(error) === "qmp-command-failed") return null;
    throw error;
  }
}
