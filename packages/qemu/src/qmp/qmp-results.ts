import { readList, QmpFields } from "./qmp-fields.ts";
import type { QemuVersion } from "./qemu-version.ts";

const RUN_STATES = [
  "debug",
  "inmigrate",
  "internal-error",
  "io-error",
  "paused",
  "postmigrate",
  "prelaunch",
  "finish-migrate",
  "restore-vm",
  "running",
  "save-vm",
  "shutdown",
  "suspended",
  "watchdog",
  "guest-panicked",
  "colo",
] as const;

export type RunState = (typeof RUN_STATES)[number];

export interface QueryStatus {
  readonly status: RunState;
  readonly running: boolean;
}

/** The parameters that the agents set; null where this QEMU does not know one. */
export interface QueryMigrateParameters {
  readonly maxBandwidthBytesPerSecond: number;
  readonly maxPostcopyBandwidthBytesPerSecond: number;
  readonly availSwitchoverBandwidthBytesPerSecond: number | null;
  readonly downtimeLimitMs: number;
  readonly throttleTriggerThresholdPercent: number | null;
  readonly cpuThrottleInitialPercent: number;
  readonly cpuThrottleIncrementPercent: number;
  readonly maxCpuThrottlePercent: number;
}

/** How fast the guest changes, by samples of its pages. */
export interface QueryDirtyRate {
  /** Null until it is measured. */
  readonly bytesPerSecond: number | null;
}

export interface QmpMachine {
  readonly name: string;
  /** Another name of the same machine, such as `q35`, which means another machine in each QEMU. */
  readonly alias: string | null;
  readonly deprecated: boolean;
}

export interface QmpCpu {
  readonly index: number;
  readonly threadId: number;
  /** Where the object is that has the features of the processor. */
  readonly qomPath: string;
}

export interface PciDevice {
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
  /** The id of the `-device` that made it; empty for one that came with the machine. */
  readonly qdevId: string;
  /** What it is, for people. */
  readonly description: string;
}

export interface QomMember {
  readonly name: string;
  /** `child<isa-serial>` for an object, else the type of a value. */
  readonly type: string;
}

export interface MemorySize {
  readonly baseBytes: number;
  readonly pluggedBytes: number;
}

export interface BlockNode {
  readonly nodeName: string;
  readonly driver: string;
  readonly filename: string;
  readonly readOnly: boolean;
  readonly virtualBytes: number;
  /** False while QEMU has given up its locks on the node; null before QEMU 10. */
  readonly active: boolean | null;
}

export interface BlockDevice {
  /** The name of the backend; empty where the device names its node. */
  readonly name: string;
  /** The path of the virtual device, such as `/machine/peripheral/disk0-device/virtio-backend`. */
  readonly qdev: string | null;
  /** `ok`, or `failed` or `nospace` once an I/O error has stopped the guest. */
  readonly ioStatus: string | null;
  readonly node: BlockNode | null;
}

export function readVersion(fields: QmpFields): QemuVersion {
  return {
    major: fields.count("major"),
    minor: fields.count("minor"),
    micro: fields.count("micro"),
  };
}

export function readQueryVersion(value: unknown): QemuVersion {
  return readVersion(new QmpFields(value, "query-version").fields("qemu"));
}

export function readQueryStatus(value: unknown): QueryStatus {
  const fields = new QmpFields(value, "query-status");
  return { status: fields.oneOf("status", RUN_STATES), running: fields.boolean("running") };
}

export function readQueryMigrateCapabilities(value: unknown): ReadonlyMap<string, boolean> {
  const entries = readList(value, "query-migrate-capabilities", (fields): [string, boolean] => [
    fields.string("capability"),
    fields.boolean("state"),
  ]);
  return new Map(entries);
}

export function readQueryMigrateParameters(value: unknown): QueryMigrateParameters {
  const fields = new QmpFields(value, "query-migrate-parameters");
  return {
    maxBandwidthBytesPerSecond: fields.count("max-bandwidth"),
    maxPostcopyBandwidthBytesPerSecond: fields.count("max-postcopy-bandwidth"),
    availSwitchoverBandwidthBytesPerSecond: fields.countOrNull("avail-switchover-bandwidth"),
    downtimeLimitMs: fields.count("downtime-limit"),
    throttleTriggerThresholdPercent: fields.countOrNull("throttle-trigger-threshold"),
    cpuThrottleInitialPercent: fields.count("cpu-throttle-initial"),
    cpuThrottleIncrementPercent: fields.count("cpu-throttle-increment"),
    maxCpuThrottlePercent: fields.count("max-cpu-throttle"),
  };
}

export function readQueryDirtyRate(value: unknown): QueryDirtyRate {
  const rate = new QmpFields(value, "query-dirty-rate").countOrNull("dirty-rate");
  return { bytesPerSecond: rate === null ? null : rate * 2 ** 20 };
}

export function readQueryMachines(value: unknown): readonly QmpMachine[] {
  return readList(value, "query-machines", (fields) => ({
    name: fields.string("name"),
    alias: fields.stringOrNull("alias"),
    deprecated: fields.boolean("deprecated"),
  }));
}

export function readQueryCpus(value: unknown): readonly QmpCpu[] {
  return readList(value, "query-cpus-fast", (fields) => ({
    index: fields.count("cpu-index"),
    threadId: fields.count("thread-id"),
    qomPath: fields.string("qom-path"),
  }));
}

export function readQueryKvm(value: unknown): { readonly enabled: boolean } {
  return { enabled: new QmpFields(value, "query-kvm").boolean("enabled") };
}

/** Of the root buses; what is behind a bridge is the bridge's. */
export function readQueryPci(value: unknown): readonly PciDevice[] {
  const buses = readList(value, "query-pci", (fields) => fields.list("devices"));
  return readList(buses.flat(), "query-pci", (fields) => ({
    bus: fields.count("bus"),
    slot: fields.count("slot"),
    function: fields.count("function"),
    qdevId: fields.string("qdev_id"),
    description: fields.fields("class_info").stringOrNull("desc") ?? "a PCI device",
  }));
}

export function readQomList(value: unknown): readonly QomMember[] {
  return readList(value, "qom-list", (fields) => ({
    name: fields.string("name"),
    type: fields.string("type"),
  }));
}

/** A property whose value is none of these is not looked at. */
export function readQomGet(value: unknown): string | boolean | number | null {
  return typeof value === "string" || typeof value === "boolean" || typeof value === "number"
    ? value
    : null;
}

export function readQueryMemorySize(value: unknown): MemorySize {
  const fields = new QmpFields(value, "query-memory-size-summary");
  return {
    baseBytes: fields.count("base-memory"),
    pluggedBytes: fields.countOrNull("plugged-memory") ?? 0,
  };
}

/** The guest's name, or null when it has none. */
export function readQueryName(value: unknown): string | null {
  return new QmpFields(value, "query-name").stringOrNull("name");
}

export function readQueryUuid(value: unknown): string {
  return new QmpFields(value, "query-uuid").string("UUID");
}

export function readQueryBlock(value: unknown): readonly BlockDevice[] {
  return readList(value, "query-block", (fields) => {
    const inserted = fields.fieldsOrNull("inserted");
    return {
      name: fields.string("device"),
      qdev: fields.stringOrNull("qdev"),
      ioStatus: fields.stringOrNull("io-status"),
      node: inserted === null ? null : readBlockNode(inserted),
    };
  });
}

export function readQueryNamedBlockNodes(value: unknown): readonly BlockNode[] {
  return readList(value, "query-named-block-nodes", readBlockNode);
}

/** The reply of a command that has nothing to say. */
export function readNothing(): void {
  // QEMU sends an empty object, and nobody relies on its being empty.
}

function readBlockNode(fields: QmpFields): BlockNode {
  return {
    nodeName: fields.string("node-name"),
    driver: fields.string("drv"),
    filename: fields.string("file"),
    readOnly: fields.boolean("ro"),
    virtualBytes: fields.fields("image").count("virtual-size"),
    active: fields.booleanOrNull("active"),
  };
}
