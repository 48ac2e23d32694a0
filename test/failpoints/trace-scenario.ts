/** Which failpoints a scenario passes, as the agents themselves write down. */
import { runScenario } from "./failpoint-round.ts";
import type { FaultBench } from "./fault-bench.ts";
import { scenarioOf, type ScenarioName, type Side } from "./scenarios.ts";

const SIDES = ["source", "dest"] as const;

/** Names that the lives which the scenario looks at have passed, without those of their start. */
export async function traceScenario(
  bench: FaultBench,
  scenario: ScenarioName,
): Promise<Record<Side, readonly string[]>> {
  const { request, first } = scenarioOf(scenario);
  const atStart: Record<Side, readonly string[]> = { source: [], dest: [] };
  const passed: Record<Side, readonly string[]> = { source: [], dest: [] };
  await runScenario(bench, scenario, {
    onStarted: () => {
      if (request === null || first !== undefined) return;
      for (const side of SIDES) atStart[side] = namesIn(bench.life(side).logText());
    },
    onSettled: () => {
      for (const side of SIDES) {
        const names = namesIn(bench.life(side).logText());
        passed[side] = names.filter((name) => !atStart[side].includes(name));
      }
    },
  });
  return passed;
}

function namesIn(log: string): readonly string[] {
  return [...log.matchAll(/^failpoint (\S+)$/gm)].map(([, name]) => name ?? "");
}
