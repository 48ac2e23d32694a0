/**
 * What the events tell of migrations, as counters, gauges and histograms. An object carries totals
 * of its migration: what they have grown by since its last event is added to the counters, so a
 * counter goes on where one migration ends and the next begins. No label names a migration or a
 * guest: the number of series does not grow.
 */
import {
  isFinalEvent,
  type AgentEvent,
  type FinalMigrationPhase,
  type MigrationObject,
} from "@vmferry/protocol";
import { Counter, Histogram, type Registry } from "prom-client";
import { registerMigrationGauges } from "./migration-gauges.ts";
import { DOWNTIME_BUCKETS, DURATION_BUCKETS, PHASE_BUCKETS } from "./seconds-buckets.ts";
import { MIGRATION_TOTALS, type MigrationTotal } from "./migration-totals.ts";

const OUTCOMES: readonly FinalMigrationPhase[] = ["completed", "failed", "cancelled"];

/** What of a migration has been counted. */
interface Counted {
  object: MigrationObject;
  readonly totals: Map<MigrationTotal, number>;
  phases: number;
}

export class MigrationMetrics {
  readonly #active = new Map<string, Counted>();
  readonly #totals: Readonly<Record<MigrationTotal["counter"], Counter>>;
  readonly #ended: Counter;
  readonly #failures: Counter;
  readonly #warnings: Counter;
  readonly #downtime: Histogram;
  readonly #duration: Histogram;
  readonly #phaseDuration: Histogram;

  constructor(registry: Registry) {
    const registers = [registry];
    const counter = (name: string, help: string, labelNames: readonly string[] = []): Counter =>
      new Counter({ name, help, labelNames, registers });
    this.#ended = counter("vmferry_migrations_total", "Migrations that have ended.", ["outcome"]);
    for (const outcome of OUTCOMES) this.#ended.inc({ outcome }, 0);
    this.#failures = counter(
      "vmferry_migration_failures_total",
      "Migrations that failed, by the code of their error.",
      ["code"],
    );
    this.#warnings = counter(
      "vmferry_migration_warnings_total",
      "What degraded while a migration went on, by code.",
      ["code"],
    );
    this.#totals = {
      data: counter(
        "vmferry_migration_data_bytes_total",
        "The guests' memory (part ram) and disks, by what became of it.",
        ["part", "kind"],
      ),
      wire: counter("vmferry_migration_wire_bytes_total", "Bytes of frames on the links."),
      reconnects: counter("vmferry_migration_reconnects_total", "Links that were opened again."),
      faults: counter("vmferry_migration_page_faults_total", "Pages that a guest had to wait for."),
    };
    for (const { counter: name, labels } of MIGRATION_TOTALS) this.#totals[name].inc(labels, 0);
    this.#downtime = new Histogram({
      name: "vmferry_migration_downtime_seconds",
      help: "From the stun until the guest was said to run at the destination; at the source.",
      buckets: DOWNTIME_BUCKETS,
      registers,
    });
    this.#duration = new Histogram({
      name: "vmferry_migration_duration_seconds",
      help: "From the beginning of a migration to its end.",
      labelNames: ["outcome"],
      buckets: DURATION_BUCKETS,
      registers,
    });
    this.#phaseDuration = new Histogram({
      name: "vmferry_migration_phase_duration_seconds",
      help: "From entering a phase to leaving it.",
      labelNames: ["phase"],
      buckets: PHASE_BUCKETS,
      registers,
    });
    registerMigrationGauges(registry, () => [...this.#active.values()].map(({ object }) => object));
  }

  account(event: AgentEvent): void {
    if (!("migration" in event)) return;
    const { migration } = event;
    if (event.type === "migration.warning") this.#warnings.inc({ code: event.warning.code });
    const counted = this.#active.get(migration.id) ?? {
      object: migration,
      totals: new Map<MigrationTotal, number>(),
      phases: 0,
    };
    this.#active.set(migration.id, counted);
    counted.object = migration;
    this.#countTotals(counted);
    this.#countPhases(counted);
    if (!isFinalEvent(event)) return;
    this.#active.delete(migration.id);
    this.#countEnd(migration);
  }

  #countTotals({ object, totals }: Counted): void {
    for (const total of MIGRATION_TOTALS) {
      const now = total.of(object);
      const before = totals.get(total) ?? 0;
      if (now <= before) continue;
      totals.set(total, now);
      this.#totals[total.counter].inc(total.labels, now - before);
    }
  }

  #countPhases(counted: Counted): void {
    const { phases } = counted.object;
    for (; counted.phases + 1 < phases.length; counted.phases++) {
      const [entered, left] = [phases[counted.phases]!, phases[counted.phases + 1]!];
      this.#phaseDuration.observe({ phase: entered.phase }, secondsBetween(entered.at, left.at));
    }
  }

  #countEnd({ phase: outcome, phases, result, error }: MigrationObject): void {
    this.#ended.inc({ outcome });
    if (outcome === "failed" && error !== null) this.#failures.inc({ code: error.code });
    if (result !== null && result.downtimeMs !== null) {
      this.#downtime.observe(result.downtimeMs / 1000);
    }
    const [first, last] = [phases.at(0), phases.at(-1)];
    if (first !== undefined && last !== undefined) {
      this.#duration.observe({ outcome }, secondsBetween(first.at, last.at));
    }
  }
}

/** Dates may have been set back meanwhile. */
function secondsBetween(from: string, to: string): number {
  return Math.max(0, Date.parse(to) - Date.parse(from)) / 1000;
}
