import type { MigrationRole } from "@vmferry/protocol";

export interface Setting {
  /** As in the file; the flag and the variable follow from it. */
  readonly key: string;
  /** Absent: both. */
  readonly role?: MigrationRole;
  /** What stands for the value in the help. */
  readonly value: string;
  /** How the default reads in the help. */
  readonly fallback?: Readonly<Record<MigrationRole, string>>;
  readonly help: string;
  /** A secret has no flag of its own: every user of the host can read command lines. */
  readonly secret?: true;
}

const both = (fallback: string): Record<MigrationRole, string> => ({
  source: fallback,
  dest: fallback,
});

/** Every setting there is, in the order of the help. */
export const SETTINGS = [
  {
    key: "apiListen",
    value: "HOST:PORT",
    fallback: { source: "127.0.0.1:7070", dest: "127.0.0.1:7080" },
    help: "HTTP API and events",
  },
  {
    key: "peerListen",
    role: "dest",
    value: "HOST:PORT",
    fallback: both("127.0.0.1:7081"),
    help: "WebSocket endpoint for source agents",
  },
  {
    key: "peers",
    role: "source",
    value: "NAME=URL,...",
    help: "the only hosts that may be destinations, as NAME=ws://HOST:PORT or wss://",
  },
  {
    key: "stateDir",
    value: "DIR",
    fallback: { source: "./.vmferry/source", dest: "./.vmferry/dest" },
    help: "journals and sockets",
  },
  {
    key: "imageDir",
    value: "DIR",
    fallback: both("images in the state directory"),
    help: "kernels, initrds and disks: definitions name files inside it",
  },
  {
    key: "sharedDir",
    value: "DIR",
    help: "directory that both hosts see: for the witness of hand-overs, and for the fallback",
  },
  {
    key: "tlsDir",
    value: "DIR",
    help: "certificates and keys: TLS between the agents, docs/tls.md",
  },
  { key: "apiToken", value: "TOKEN", secret: true, help: "bearer token of the HTTP API" },
  { key: "apiTokenFile", value: "FILE", help: "file that holds the API token" },
  { key: "peerToken", value: "TOKEN", secret: true, help: "shared secret between the agents" },
  { key: "peerTokenFile", value: "FILE", help: "file that holds the peer token" },
  { key: "insecure", value: "", help: "1 allows plaintext between hosts" },
  {
    key: "qemu",
    value: "BINARY",
    fallback: both("qemu-system-x86_64"),
    help: "QEMU to start guests with",
  },
  {
    key: "logLevel",
    value: "LEVEL",
    fallback: both("info"),
    help: "fatal, error, warn, info, debug, trace or silent",
  },
  {
    key: "guestMemoryBytesMax",
    value: "BYTES",
    help: "the sum of all guests' memory that this host accepts",
  },
  {
    key: "migrationsKeptMax",
    value: "COUNT",
    fallback: both("1000"),
    help: "finished migrations that the API still shows",
  },
  {
    key: "migrationsKeptDays",
    value: "DAYS",
    fallback: both("30"),
    help: "how long the API shows a finished migration",
  },
] as const satisfies readonly Setting[];

export type SettingKey = (typeof SETTINGS)[number]["key"];

export function settingsOf(role: MigrationRole): readonly (Setting & { key: SettingKey })[] {
  return SETTINGS.filter((setting: Setting) => setting.role === undefined || setting.role === role);
}

/** apiListen → --api-listen */
export function flagOf(key: string): string {
  return `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** apiListen → VMFERRY_API_LISTEN */
export function variableOf(key: string): string {
  return `VMFERRY_${key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}
