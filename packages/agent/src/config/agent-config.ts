import type { MigrationRole } from "@vmferry/protocol";
import type { ListenAddress } from "./listen-address.ts";
import type { PeerAddress } from "./peer-list.ts";

export const LOG_LEVELS = ["fatal", "error", "warn", "info", "debug", "trace", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

interface CommonConfig {
  readonly apiListen: ListenAddress;
  /** Directories are absolute. */
  readonly stateDir: string;
  readonly imageDir: string;
  readonly sharedDir: string | null;
  /** Certificates and keys of TLS between the agents; null is plaintext. */
  readonly tlsDir: string | null;
  readonly apiToken: string | null;
  readonly peerToken: string | null;
  /** Plaintext to and from other hosts was asked for. */
  readonly insecure: boolean;
  readonly qemu: string;
  readonly logLevel: LogLevel;
  /** The sum of all guests' memory that this host accepts; null leaves it to the kernel. */
  readonly guestMemoryBytesMax: number | null;
  /** Finished migrations that are kept, at most so many and so long. */
  readonly migrationsKeptMax: number;
  readonly migrationsKeptDays: number;
}

export interface SourceConfig extends CommonConfig {
  readonly role: "source";
  /** The only hosts that may be destinations. */
  readonly peers: readonly PeerAddress[];
}

export interface DestConfig extends CommonConfig {
  readonly role: "dest";
  readonly peerListen: ListenAddress;
}

/** What an agent runs with: valid, with defaults, frozen. */
export type AgentConfig = SourceConfig | DestConfig;

export type ConfigOf<Role extends MigrationRole> = Extract<AgentConfig, { readonly role: Role }>;
