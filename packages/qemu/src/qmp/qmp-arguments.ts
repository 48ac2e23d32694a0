// What may be said to QEMU, member by member. QMP can start programs, read files and open network
// connections on behalf of whoever speaks it; the agents need none of that. So a migration goes to
// or comes from a unix socket only, and a block node is an image or an export on a unix socket.

import { list, object, oneOf, text, whole, type ArgumentCheck } from "./argument-check.ts";
import type { FileNode, NbdNode, RawNode } from "./block-nodes.ts";
import { UNIX_SOCKET_PATH_BYTES_MAX, unixSocketPathBytes } from "./unix-socket-path.ts";

const MIGRATION_CAPABILITIES = [
  "return-path",
  "events",
  "pause-before-switchover",
  "late-block-activate",
  "postcopy-ram",
  "postcopy-preempt",
  "auto-converge",
  "validate-uuid",
] as const;

export type MigrationCapability = (typeof MIGRATION_CAPABILITIES)[number];

/** Bandwidths in bytes a second, times in milliseconds, throttling in percent. */
export interface SetMigrationParameters {
  readonly "max-bandwidth"?: number;
  readonly "max-postcopy-bandwidth"?: number;
  readonly "avail-switchover-bandwidth"?: number;
  readonly "downtime-limit"?: number;
  readonly "throttle-trigger-threshold"?: number;
  readonly "cpu-throttle-initial"?: number;
  readonly "cpu-throttle-increment"?: number;
  readonly "max-cpu-throttle"?: number;
}

/** The arguments of each command that takes some. */
export interface QmpArgumentMap {
  readonly qmp_capabilities: { readonly enable?: readonly "oob"[] };
  readonly migrate: { readonly uri: string; readonly resume?: boolean };
  readonly "migrate-incoming": {
    readonly uri: string;
    /** QEMU 9.1 and newer: false keeps the process after a load that failed. */
    readonly "exit-on-error"?: boolean;
  };
  readonly "migrate-recover": { readonly uri: string };
  readonly "migrate-set-capabilities": {
    readonly capabilities: readonly {
      readonly capability: MigrationCapability;
      readonly state: boolean;
    }[];
  };
  readonly "migrate-set-parameters": SetMigrationParameters;
  readonly "calc-dirty-rate": {
    readonly "calc-time": number;
    /** QEMU 8.2 and newer: seconds are all that older ones have. */
    readonly "calc-time-unit": "millisecond";
    readonly "sample-pages": number;
    readonly mode: "page-sampling";
  };
  readonly "migrate-continue": { readonly state: "pre-switchover" };
  readonly "query-named-block-nodes": { readonly flat: true };
  readonly "qom-list": { readonly path: string };
  readonly "qom-get": { readonly path: string; readonly property: string };
  readonly "blockdev-add": FileNode | NbdNode;
  readonly "blockdev-reopen": { readonly options: readonly RawNode[] };
  readonly "blockdev-del": { readonly "node-name": string };
  readonly "blockdev-mirror": {
    readonly "job-id": string;
    readonly device: string;
    readonly target: string;
    readonly sync: "full";
    /** A write of the guest is done when the target has it as well. */
    readonly "copy-mode": "write-blocking";
  };
  readonly "block-job-cancel": { readonly device: string; readonly force: boolean };
}

const PATH_CHARACTERS_MAX = 4096;
const DISKS_MAX = 64;

// No control characters: a name with one in it is nobody's honest file name.
const absolutePath = text(/^\/[^\x00-\x1f]+$/, PATH_CHARACTERS_MAX);
const nodeName = text(/^[A-Za-z][A-Za-z0-9_.-]*$/, 31);
const jobId = text(/^[A-Za-z][A-Za-z0-9_.-]*$/, 63);
const qomPath = text(/^\/[\x21-\x7e]+$/, 255);
const boolean = oneOf(true, false);
const bytesPerSecond = whole(0, Number.MAX_SAFE_INTEGER);
const percent = whole(1, 99);

const socketPath: ArgumentCheck = (value) => {
  const problem = absolutePath(value);
  if (problem !== null) return problem;
  return unixSocketPathBytes(value as string) <= UNIX_SOCKET_PATH_BYTES_MAX
    ? null
    : `is longer than ${UNIX_SOCKET_PATH_BYTES_MAX} bytes`;
};

const unixUri: ArgumentCheck = (value) =>
  typeof value === "string" && value.startsWith("unix:")
    ? socketPath(value.slice("unix:".length))
    : "has to begin with unix:";

const node = { "node-name": nodeName, discard: oneOf("unmap") };
const fileNode = object({
  ...node,
  driver: oneOf("file", "host_device"),
  filename: absolutePath,
});
const nbdNode = object({
  ...node,
  driver: oneOf("nbd"),
  server: object({ type: oneOf("unix"), path: socketPath }),
  export: text(/^[A-Za-z0-9_.-]+$/, 255),
  "reconnect-delay": whole(0, 3600),
});
const rawNode = object({ ...node, driver: oneOf("raw"), file: nodeName });

export const QMP_ARGUMENT_CHECKS: { readonly [Command in keyof QmpArgumentMap]: ArgumentCheck } = {
  qmp_capabilities: object({}, { enable: list(oneOf("oob"), 1) }),
  migrate: object({ uri: unixUri }, { resume: boolean }),
  "migrate-incoming": object({ uri: unixUri }, { "exit-on-error": boolean }),
  "migrate-recover": object({ uri: unixUri }),
  "migrate-set-capabilities": object({
    capabilities: list(
      object({ capability: oneOf(...MIGRATION_CAPABILITIES), state: boolean }),
      MIGRATION_CAPABILITIES.length,
    ),
  }),
  "migrate-set-parameters": object(
    {},
    {
      "max-bandwidth": bytesPerSecond,
      "max-postcopy-bandwidth": bytesPerSecond,
      "avail-switchover-bandwidth": bytesPerSecond,
      "downtime-limit": whole(0, 2_000_000),
      "throttle-trigger-threshold": whole(1, 100),
      "cpu-throttle-initial": percent,
      "cpu-throttle-increment": percent,
      "max-cpu-throttle": percent,
    },
  ),
  "calc-dirty-rate": object({
    "calc-time": whole(50, 60_000),
    "calc-time-unit": oneOf("millisecond"),
    "sample-pages": whole(128, 16_384),
    mode: oneOf("page-sampling"),
  }),
  "migrate-continue": object({ state: oneOf("pre-switchover") }),
  "query-named-block-nodes": object({ flat: oneOf(true) }),
  "qom-list": object({ path: qomPath }),
  "qom-get": object({ path: qomPath, property: text(/^[a-z][A-Za-z0-9_.-]*$/, 64) }),
  "blockdev-add": (value) => {
    const driver = typeof value === "object" && value !== null && "driver" in value && value.driver;
    return driver === "nbd" ? nbdNode(value) : fileNode(value);
  },
  "blockdev-reopen": object({ options: list(rawNode, DISKS_MAX) }),
  "blockdev-del": object({ "node-name": nodeName }),
  "blockdev-mirror": object({
    "job-id": jobId,
    device: nodeName,
    target: nodeName,
    sync: oneOf("full"),
    "copy-mode": oneOf("write-blocking"),
  }),
  "block-job-cancel": object({ device: jobId, force: boolean }),
};
