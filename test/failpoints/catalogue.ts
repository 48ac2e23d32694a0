/**
 * All failpoints of both agents, and in which scenario each of them is passed. `catalogue.json` is
 * checked in: a failpoint that is not passed any more is missed. `run.ts --discover` writes it anew.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { FaultBench } from "./fault-bench.ts";
import { SCENARIO_NAMES, scenarioOf, type ScenarioName, type Side } from "./scenarios.ts";
import { traceScenario } from "./trace-scenario.ts";

export interface CatalogueEntry {
  readonly side: Side;
  readonly name: string;
  readonly scenario: ScenarioName;
}

/** Fewer of them would not be before and after each of what the agents do. */
export const FAILPOINTS_MIN = 60;

const PATH = fileURLToPath(new URL("catalogue.json", import.meta.url));
/** What decides about a guest is also hit in the life after a crash. */
const DECISIVE =
  /^(journal|mark)\.|^send\.(token|taken|running|complete|refused|abort|resume)\.|^qmp\.(cont|quit|blockdev-reopen)\./;

export function readCatalogue(): readonly CatalogueEntry[] {
  return JSON.parse(readFileSync(PATH, "utf8")) as CatalogueEntry[];
}

export function writeCatalogue(entries: readonly CatalogueEntry[]): void {
  writeFileSync(PATH, `${JSON.stringify(entries, null, 2)}\n`);
}

/** Passes through every scenario once, with nothing going wrong but what belongs to it. */
export async function discover(bench: FaultBench): Promise<readonly CatalogueEntry[]> {
  const entries: CatalogueEntry[] = [];
  for (const scenario of SCENARIO_NAMES) {
    const { sides, first } = scenarioOf(scenario);
    const passed = await traceScenario(bench, scenario);
    for (const side of sides) {
      for (const name of passed[side].toSorted()) {
        const isKnown = entries.some((entry) => entry.side === side && entry.name === name);
        const isWanted = !isKnown || (first !== undefined && DECISIVE.test(name));
        if (isWanted) entries.push({ side, name, scenario });
      }
    }
  }
  return entries;
}

/** Different failpoints: the same one may be hit in several scenarios. */
export function countFailpoints(entries: readonly CatalogueEntry[]): number {
  return new Set(entries.map(({ side, name }) => `${side} ${name}`)).size;
}
