import {
  fillGuestDefinition,
  type GuestDefinition,
  type GuestObject,
  type MigrationObject,
} from "@vmferry/protocol";
import { systemClock, type Clock } from "@vmferry/core";
import { EventHub } from "../events/event-hub.ts";
import { createLogger } from "../log.ts";
import { AgentMetrics } from "../metrics/agent-metrics.ts";
import { MigrationStore } from "../migrations/migration-store.ts";
import { newMigrationObject } from "../migrations/new-migration-object.ts";
import { ProblemError } from "../problem-error.ts";
import type { GuestService } from "./guest-service.ts";
import type { MigrationService } from "./migration-service.ts";
import type { HttpServer } from "./http-server.ts";
import { createHttpServer, type HttpServerOptions } from "./server.ts";

export interface Api {
  readonly app: HttpServer;
  readonly hub: EventHub;
  readonly store: MigrationStore;
  readonly metrics: AgentMetrics;
  /** What the services were asked for. */
  readonly calls: unknown[];
  readonly logLines: string[];
}

export interface ApiOptions extends Partial<
  Pick<
    HttpServerOptions,
    "role" | "apiToken" | "guests" | "readiness" | "heartbeatMs" | "dashboard"
  >
> {
  /** Instead of what the store does, and besides. */
  readonly steering?: Partial<MigrationService>;
  readonly clock?: Clock;
}

/** For tests: the API over services that only remember what they were asked for. */
export function createApi(options: ApiOptions = {}): Api {
  const { clock = systemClock } = options;
  const hub = new EventHub({ clock });
  const store = new MigrationStore({ hub, clock });
  const calls: unknown[] = [];
  const logLines: string[] = [];
  const guests = options.guests ?? fakeGuests(calls);
  const logger = createLogger({
    role: "source",
    level: "debug",
    stream: { write: (line) => void logLines.push(line) },
  });
  const metrics = new AgentMetrics({ role: "source", hub, guests, logger });
  const app = createHttpServer({
    role: options.role ?? "source",
    apiToken: options.apiToken ?? null,
    guests,
    metrics,
    migrations: withSteering(store, options.steering),
    readiness: options.readiness ?? (() => []),
    heartbeatMs: options.heartbeatMs ?? 15_000,
    ...(options.dashboard === undefined ? {} : { dashboard: options.dashboard }),
    hub,
    clock,
    logger,
  });
  return { app, hub, store, metrics, calls, logLines };
}

export function sampleMigration(id: string, guest = "web1"): MigrationObject {
  const startedAt = new Date("2030-01-01T00:00:00Z");
  return newMigrationObject({ id, role: "source", guest, destination: "host-b", startedAt });
}

export const SAMPLE_DEFINITION = {
  name: "web1",
  machine: "pc-q35-7.2",
  memoryBytes: 536_870_912,
  boot: { kernel: "vmlinuz" },
};

function sampleGuest(definition: GuestDefinition): GuestObject {
  const { name, machine, cpu, vcpus, memoryBytes } = definition;
  return {
    ...{ name, machine, cpu, vcpus, memoryBytes, accel: "tcg", state: "running", epoch: 1 },
    ...{ pid: 4711, qemuVersion: "10.0.2", serialLog: "/tmp/serial.log", disks: [] },
    attached: null,
  };
}

function fakeGuests(calls: unknown[]): GuestService {
  const guests = new Map<string, GuestObject>();
  const get = (name: string): GuestObject => {
    const guest = guests.get(name);
    if (guest === undefined) throw new ProblemError(`no ${name}`, { code: "guest-not-found" });
    return guest;
  };
  return {
    list: () => [...guests.values()],
    get,
    start: (definition) => {
      calls.push(definition);
      guests.set(definition.name, sampleGuest(definition));
      return Promise.resolve(get(definition.name));
    },
    attach: (request) => {
      calls.push(request);
      const { name, attach } = request;
      const guest = sampleGuest({ ...fillGuestDefinition(SAMPLE_DEFINITION), name });
      const attached = { ...attach, launchRefusal: "", postCopyRefusal: "" };
      guests.set(name, { ...guest, attached });
      return Promise.resolve(get(name));
    },
    powerOff: (name) => Promise.resolve({ ...get(name), state: "stopped" }),
  };
}

function withSteering(store: MigrationStore, steering: ApiOptions["steering"]): MigrationService {
  return {
    list: (page) => store.list(page),
    get: (id) => store.get(id),
    wait: (id, timeoutMs, signal) => store.wait(id, timeoutMs, signal),
    ...steering,
  };
}
