import type { Clock } from "@vmferry/core";
import type { Guest, GuestRegistry, Logger, MigrationStore } from "@vmferry/agent";
import type { PeerDialer } from "../adapters/peer-dialer.ts";
import type { Identity } from "./peer-link.ts";

/** What a session needs of its surroundings. */
export interface SourceSessionPorts {
  readonly guest: Guest;
  readonly registry: GuestRegistry;
  readonly dialer: PeerDialer;
  readonly identity: Identity;
  readonly store: MigrationStore;
  readonly logger: Logger;
  readonly clock: Clock;
  /** Directory of the migration's sockets. */
  readonly runDir: string;
  readonly imageDir: string;
  readonly bulkConnections: number;
}
