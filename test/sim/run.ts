/**
 * Many seeds, one after another:
 *
 *   node test/sim/run.ts --seeds 100000 --from 1
 *   node test/sim/run.ts --trace 4711 [--planted NAME]
 */
import { parseArgs } from "node:util";
import { plantedBugs } from "./planted-bugs.ts";
import type { PlantedBug } from "./setting.ts";
import { simulate } from "./simulate.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    from: { type: "string", default: "1" },
    trace: { type: "string" },
    planted: { type: "string" },
  },
});

/** Violations that are named; the others are only counted. */
const SHOWN_MAX = 40;
const bug = bugOf(values.planted);

function bugOf(name: string | undefined): PlantedBug {
  if (name === undefined) return {};
  const bug = plantedBugs[name];
  if (bug !== undefined) return bug;
  throw new Error(`there are ${Object.keys(plantedBugs).join(", ")}, and no ${name}`);
}

if (values.trace !== undefined) {
  const found = await simulate(Number(values.trace), { keepsTrace: true, bug });
  const { trace, ...rest } = found;
  for (const line of trace) console.log(line);
  console.log(rest);
} else {
  const from = Number(values.from);
  const count = Number(values.seeds);
  const outcomes = new Map<string, number>();
  const startedMs = performance.now();
  let steps = 0;
  let violations = 0;
  for (let seed = from; seed < from + count; seed++) {
    const found = await simulate(seed, { bug });
    steps += found.steps;
    outcomes.set(found.outcome, (outcomes.get(found.outcome) ?? 0) + 1);
    if (found.violation !== null) {
      violations += 1;
      if (violations <= SHOWN_MAX)
        console.log(`seed ${seed}: ${found.violation} [${found.faults.join(", ")}]`);
    }
    if ((seed - from + 1) % 5000 === 0) console.log(progress(seed - from + 1));
  }
  console.log(progress(count));
  console.log(Object.fromEntries([...outcomes].sort()));
  function progress(done: number): string {
    const seconds = (performance.now() - startedMs) / 1000;
    return `${done} seeds, ${steps} steps, ${(done / seconds).toFixed(0)} seeds/s, ${violations} violations`;
  }
}
