/** The active migrations together, as they are when somebody asks. */
import {
  isFinalPhase,
  MigrationObjectSchema,
  type MigrationObject,
  type MigrationPhase,
} from "@vmferry/protocol";
import { Gauge, type Registry } from "prom-client";
import { sumOf } from "./migration-totals.ts";

const PHASES: readonly MigrationPhase[] = MigrationObjectSchema.properties.phase.enum;
const ACTIVE_PHASES = PHASES.filter((phase) => !isFinalPhase(phase));

type Active = () => readonly MigrationObject[];

interface GaugeText {
  readonly name: string;
  readonly help: string;
}

export function registerMigrationGauges(registry: Registry, active: Active): void {
  new Gauge({
    name: "vmferry_migrations_active",
    help: "Migrations that have not ended, by phase; in-doubt needs a look.",
    labelNames: ["phase"],
    registers: [registry],
    collect() {
      const phases = active().map((object) => object.phase);
      for (const phase of ACTIVE_PHASES) {
        this.set({ phase }, phases.filter((each) => each === phase).length);
      }
    },
  });
  const bytes = (text: GaugeText, pick: (part: Part) => number | null): void => {
    registerBytes(registry, active, { ...text, pick });
  };
  const rate = (text: GaugeText, pick: (object: MigrationObject) => number | null): void => {
    registerRate(registry, active, { ...text, pick });
  };
  bytes(
    { name: "vmferry_migration_remaining_bytes", help: "What is still to be sent." },
    ({ remainingBytes }) => remainingBytes,
  );
  bytes(
    { name: "vmferry_migration_held_bytes", help: "What is kept back, as it changes too often." },
    ({ heldBytes }) => heldBytes,
  );
  rate(
    { name: "vmferry_migration_dirty_bytes_per_second", help: "Memory that the guests change." },
    ({ ram }) => ram.dirtyBytesPerSecond,
  );
  rate(
    { name: "vmferry_migration_transfer_bytes_per_second", help: "What the links carry." },
    ({ wire }) => wire.bytesPerSecond,
  );
}

/** What memory and each disk have in common. */
type Part = Pick<MigrationObject["ram"], "remainingBytes" | "heldBytes">;

function registerBytes(
  registry: Registry,
  active: Active,
  { name, help, pick }: GaugeText & { readonly pick: (part: Part) => number | null },
): void {
  const sum = (parts: readonly Part[]): number => sumOf(parts.map((part) => pick(part) ?? 0));
  new Gauge({
    name,
    help,
    labelNames: ["part"],
    registers: [registry],
    collect() {
      this.set({ part: "ram" }, sum(active().map(({ ram }) => ram)));
      this.set({ part: "disk" }, sum(active().flatMap(({ disks }) => disks)));
    },
  });
}

function registerRate(
  registry: Registry,
  active: Active,
  { name, help, pick }: GaugeText & { readonly pick: (object: MigrationObject) => number | null },
): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(sumOf(active().map((object) => pick(object) ?? 0)));
    },
  });
}
