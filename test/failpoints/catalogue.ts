/**
 * All failpoints of both agents, and in which scenario each of them is passed. `catalogue.json` is
 * checked in: a failpoint that is not passed any more is missed. `run.ts --discover` writes it anew, all of
 * it or one scenario.
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

/**
 * Passes through every scenario once, with nothing going wrong but what belongs to it; with `only`
 * through that one, and what is known of the others stays.
 */
export async function discover(
  bench: FaultBench,
  only?: string,
): Promise<readonly CatalogueEntry[]> {
  const before = only === undefined ? [] : readCatalogue();
  const entries: CatalogueEntry[] = [];
  for (const scenario of SCENARIO_NAMES) {
    const isWanted = only === undefined || only === scenario;
    const passed = isWanted
      ? await passedIn(bench, scenario)
      : before.filter((entry) => entry.scenario === scenario);
    const { first } = scenarioOf(scenario);
    for (const { side, name } of passed) {
      const isKnown = entries.some((entry) => entry.side === side && entry.name === name);
      const isNew = !isKnown || (first !== undefined && DECISIVE.test(name));
      if (isNew) entries.push({ side, name, scenario });
    }
  }
  return entries;
}

async function passedIn(bench: FaultBench, scenario: ScenarioName): Promise<CatalogueEntry[]> {
  const { sides } = scenarioOf(scenario);
  const passed = await traceScenario(bench, scenario);
  return sides.flatMap((side) =>
    passed[side].toSorted().map((name): CatalogueEntry => ({ side, name, scenario })),
  );
}

/** Different failpoints: the same one may be hit in several scenarios. */
export function countFailpoints(entries: readonly CatalogueEntry[]): number {
  return new Set(entries.map(({ side, name }) => `${side} ${name}`)).size;
}
