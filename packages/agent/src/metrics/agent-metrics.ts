/**
 * What `/metrics` shows of one agent. Migrations are counted from the events that tell of them and
 * guests when somebody asks: nothing on the way of a page or a block knows of metrics.
 */
import { GuestObjectSchema, type GuestState, type MigrationRole } from "@vmferry/protocol";
import type { Logger } from "pino";
import { collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { EventHub } from "../events/event-hub.ts";
import type { GuestService } from "../http/guest-service.ts";
import { VERSION } from "../software.ts";
import type { PeerTls } from "../tls/peer-tls.ts";
import { MigrationMetrics } from "./migration-metrics.ts";
import { FAULT_BUCKETS, SYNC_BUCKETS } from "./seconds-buckets.ts";

const GUEST_STATES: readonly GuestState[] = GuestObjectSchema.properties.state.enum;

export interface AgentMetricsOptions {
  /** A label of everything: one Prometheus watches both kinds of agents. */
  readonly role: MigrationRole;
  readonly hub: EventHub;
  readonly guests: Pick<GuestService, "list">;
  readonly logger: Logger;
}

export class AgentMetrics {
  readonly #registry = new Registry();
  readonly #journalSync: Histogram;
  readonly #pageFault: Histogram;

  constructor({ role, hub, guests, logger }: AgentMetricsOptions) {
    const registers = [this.#registry];
    this.#registry.setDefaultLabels({ role });
    this.#describeBuild(registers);
    const migrations = new MigrationMetrics(this.#registry);
    hub.observe((event) => {
      try {
        migrations.account(event);
      } catch (error) {
        // Whoever published the event is in the middle of a migration.
        logger.error({ err: error }, "an event was not counted in the metrics");
      }
    });
    this.#journalSync = new Histogram({
      name: "vmferry_journal_sync_seconds",
      help: "How long a record of who owns a guest took to become durable.",
      buckets: SYNC_BUCKETS,
      registers,
    });
    this.#pageFault = new Histogram({
      name: "vmferry_page_fault_seconds",
      help: "How long a guest waited for a page that had not come yet (post-copy).",
      buckets: FAULT_BUCKETS,
      registers,
    });
    this.#watchNow(registers, { hub, guests });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  /** The process as well, event-loop delay included. It is watched from then on until it ends. */
  watchProcess(): void {
    collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: 20 });
  }

  journalSynced(seconds: number): void {
    this.#journalSync.observe(seconds);
  }

  pageFaulted(seconds: number): void {
    this.#pageFault.observe(seconds);
  }

  /** Until when the agents accept each other; none without TLS. */
  watchCertificates(tls: Pick<PeerTls, "expiries"> | null): void {
    new Gauge({
      name: "vmferry_tls_certificate_expiry_timestamp_seconds",
      help: "When a certificate of the TLS between agents expires, in seconds since 1970.",
      labelNames: ["certificate"],
      registers: [this.#registry],
      collect() {
        for (const { certificate, at } of tls?.expiries ?? []) {
          this.set({ certificate }, at.getTime() / 1000);
        }
      },
    });
  }

  #describeBuild(registers: Registry[]): void {
    const build = new Gauge({
      name: "vmferry_build_info",
      help: "Always 1; the labels say what runs.",
      labelNames: ["version", "node"],
      registers,
    });
    build.set({ version: VERSION, node: process.versions.node }, 1);
  }

  #watchNow(
    registers: Registry[],
    { hub, guests }: Pick<AgentMetricsOptions, "hub" | "guests">,
  ): void {
    new Gauge({
      name: "vmferry_guests",
      help: "Guests of this host, by state.",
      labelNames: ["state"],
      registers,
      collect() {
        const states = guests.list().map((guest) => guest.state);
        for (const state of GUEST_STATES) {
          this.set({ state }, states.filter((each) => each === state).length);
        }
      },
    });
    new Gauge({
      name: "vmferry_event_listeners",
      help: "Event streams that are open.",
      registers,
      collect() {
        this.set(hub.subscriptionCount);
      },
    });
  }
}
