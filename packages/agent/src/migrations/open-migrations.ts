import type { Logger } from "pino";
import type { Clock } from "@vmferry/core";
import type { MigrationRole } from "@vmferry/protocol";
import type { EventHub } from "../events/event-hub.ts";
import { MigrationHistory } from "./migration-history.ts";
import { MigrationStore } from "./migration-store.ts";

const DAY_MS = 86_400_000;

export interface OpenMigrationsOptions {
  readonly role: MigrationRole;
  readonly config: {
    readonly stateDir: string;
    readonly migrationsKeptMax: number;
    readonly migrationsKeptDays: number;
  };
  readonly hub: EventHub;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The migrations of an agent, with those that its earlier lives have seen end. */
export async function openMigrations(
  options: OpenMigrationsOptions,
): Promise<{ readonly store: MigrationStore; readonly history: MigrationHistory }> {
  const { role, config, hub, clock, logger } = options;
  const history = new MigrationHistory({ role, stateDir: config.stateDir, logger });
  const retention = {
    finishedMax: config.migrationsKeptMax,
    finishedMsMax: config.migrationsKeptDays * DAY_MS,
  };
  const store = new MigrationStore({ hub, clock, history, ...retention });
  store.restore(await history.read());
  return { store, history };
}
