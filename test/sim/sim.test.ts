import { describe, expect, test } from "vitest";
import { plantedBugs } from "./planted-bugs.ts";
import { simulate, type SimulateOptions, type Simulated } from "./simulate.ts";

/* Seeds from SEED on; `node test/sim/run.ts` runs as many as you like, from wherever you like. */

const FROM = Number(process.env["SEED"] ?? 1);
const SEEDS = Number(process.env["SEEDS"] ?? 3000);
const REPLAYED = 100;
/** A bug that takes more is not found. */
const PLANTED_SEEDS = 10_000;

async function firstViolation(
  options: SimulateOptions & { readonly from: number; readonly seeds: number },
): Promise<Simulated | null> {
  for (let seed = options.from; seed < options.from + options.seeds; seed++) {
    const found = await simulate(seed, options);
    if (found.violation !== null) return found;
  }
  return null;
}

/** What led to it, for whoever reads the test's output. */
async function storyOf({ seed, faults }: Simulated): Promise<string> {
  const { trace } = await simulate(seed, { keepsTrace: true });
  const head = `seed ${seed}, with ${faults.join(", ") || "no faults"}:`;
  return [head, ...trace.slice(-80)].join("\n");
}

describe("both agents in a simulated world", () => {
  test("keep every promise and find an end, whatever a seed brings", async () => {
    process.stdout.write(`seeds ${FROM} to ${FROM + SEEDS - 1}\n`);
    const found = await firstViolation({ from: FROM, seeds: SEEDS });
    expect(found?.violation ?? null, found === null ? "" : await storyOf(found)).toBeNull();
  });

  test("do the same again when a seed is replayed", async () => {
    for (let seed = FROM; seed < FROM + REPLAYED; seed++) {
      const first = await simulate(seed);
      const second = await simulate(seed, { keepsTrace: true });
      expect(second.traceHash, `seed ${seed}`).toBe(first.traceHash);
      expect(second.steps, `seed ${seed}`).toBe(first.steps);
    }
  });
});

describe("a bug is found that is put into the agents or around them", () => {
  test.each(Object.entries(plantedBugs))("%s", async (name, bug) => {
    const found = await firstViolation({ from: 1, seeds: PLANTED_SEEDS, bug });
    expect(found, `${name} is not found within ${PLANTED_SEEDS} seeds`).not.toBeNull();
    process.stdout.write(`${name}: seed ${found?.seed ?? 0}: ${found?.violation ?? ""}\n`);
  });
});
