/**
 * Hits failpoints of real agents that move a real guest, one after the other:
 *
 *   node test/failpoints/run.ts [--only NAME] [--side source|dest] [--scenario NAME]
 *     [--actions kill,stop,cut,one-way,enospc,eio] [--rounds N] [--seed N]
 *     [--once] [--json FILE] [--resume] [--markdown FILE] [--logs DIRECTORY]
 *   node test/failpoints/run.ts --discover [--scenario NAME]
 *
 * `--once` leaves out where a failpoint is passed again in the life after a crash. `--json` gets a
 * line a round; with `--resume` what was hit there without a finding is not repeated.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  countFailpoints,
  discover,
  readCatalogue,
  writeCatalogue,
  type CatalogueEntry,
} from "./catalogue.ts";
import { ACTIONS, runRound, type Action, type RoundResult, type Shot } from "./failpoint-round.ts";
import { FaultBench } from "./fault-bench.ts";
import { formatOutcomes } from "./outcome-table.ts";
import { planShots } from "./plan-shots.ts";

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    side: { type: "string" },
    scenario: { type: "string" },
    actions: { type: "string" },
    rounds: { type: "string", default: "1" },
    /** As many sound rounds of a failpoint are enough. */
    hits: { type: "string", default: "1000" },
    seed: { type: "string", default: "1" },
    json: { type: "string" },
    markdown: { type: "string" },
    logs: { type: "string", default: "/tmp/failpoint-logs" },
    resume: { type: "boolean", default: false },
    once: { type: "boolean", default: false },
    discover: { type: "boolean", default: false },
  },
});
/** Journals of former guests add up: a new pair of agents now and then. */
const ROUNDS_PER_BENCH = 40;
const ROUND_MS_MAX = 300_000;

if (values.discover) await runDiscovery();
else await runAll();

async function runDiscovery(): Promise<void> {
  const bench = await FaultBench.open();
  try {
    const entries = await discover(bench, values.scenario);
    writeCatalogue(entries);
    console.log(`${countFailpoints(entries)} failpoints, ${entries.length} with their scenarios`);
  } finally {
    await bench.close();
  }
}

async function runAll(): Promise<void> {
  const before = values.resume ? readResults() : [];
  const shots = withoutDone(plannedShots(), before);
  const results: RoundResult[] = [...before];
  console.log(`${shots.length} rounds, seed ${values.seed}`);
  let bench: FaultBench | null = null;
  try {
    for (const [index, shot] of shots.entries()) {
      if (hitsOf(shot, results) >= Number(values.hits)) continue;
      if (index % ROUNDS_PER_BENCH === 0) {
        await bench?.close();
        bench = null;
      }
      bench ??= await FaultBench.open();
      const result = await runSafely(bench, shot);
      results.push(result);
      report(result, `${index + 1}/${shots.length}`);
      if (result.findings.length === 0) continue;
      saveLogs(result, bench.logs);
      await bench.close();
      bench = null;
    }
  } finally {
    await bench?.close();
  }
  if (values.markdown !== undefined) writeFileSync(values.markdown, formatOutcomes(results));
  process.exitCode = results.some(({ findings }) => findings.length > 0) ? 1 : 0;
}

function hitsOf({ side, name }: Shot, results: readonly RoundResult[]): number {
  return results.filter(
    (one) => one.side === side && one.name === name && one.hit && one.findings.length === 0,
  ).length;
}

/** A round that throws is one with a finding. */
async function runSafely(bench: FaultBench, shot: Shot): Promise<RoundResult> {
  const startedMs = performance.now();
  try {
    return await Promise.race([runRound(bench, shot), tooLate()]);
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    const totalMs = Math.round(performance.now() - startedMs);
    const nothing = { passage: 0, stoodMs: 0, settled: null, restarted: false };
    return {
      ...shot,
      hit: false,
      ...nothing,
      findings: [`broke: ${text.slice(0, 2000)}`],
      totalMs,
    };
  }
}

function tooLate(): Promise<never> {
  return new Promise((_resolve, reject) => {
    // Nothing waits for it once the rounds are over.
    setTimeout(() => {
      reject(new Error(`the round did not end within ${ROUND_MS_MAX} ms`));
    }, ROUND_MS_MAX).unref();
  });
}

function plannedShots(): readonly Shot[] {
  const wanted = (values.actions?.split(",") ?? [...ACTIONS]) as Action[];
  const catalogue = readCatalogue();
  const isFirst = (entry: CatalogueEntry): boolean =>
    catalogue.find(({ side, name }) => side === entry.side && name === entry.name) === entry;
  const entries = catalogue.filter(
    ({ side, name, scenario }) =>
      (values.only ?? name) === name &&
      (values.side ?? side) === side &&
      (values.scenario ?? scenario) === scenario,
  );
  const wantedEntries = values.once ? entries.filter(isFirst) : entries;
  const seed = Number(values.seed);
  return planShots(wantedEntries, { actions: wanted, rounds: Number(values.rounds), seed });
}

/** As many of each kind as have been hit without a finding need not be repeated. */
function withoutDone(shots: readonly Shot[], done: readonly RoundResult[]): readonly Shot[] {
  const left = new Map<string, number>();
  for (const result of done) left.set(keyOf(result), (left.get(keyOf(result)) ?? 0) + 1);
  return shots.filter((shot) => {
    const count = left.get(keyOf(shot)) ?? 0;
    left.set(keyOf(shot), count - 1);
    return count <= 0;
  });
}

function readResults(): readonly RoundResult[] {
  if (values.json === undefined || !existsSync(values.json)) return [];
  const lines = readFileSync(values.json, "utf8").split("\n").filter(Boolean);
  const results = lines.map((line) => JSON.parse(line) as RoundResult);
  return results.filter(({ hit, findings }) => hit && findings.length === 0);
}

function keyOf({ side, name, scenario, action }: Shot): string {
  return [side, name, scenario, action].join(" ");
}

function report(result: RoundResult, progress: string): void {
  if (values.json !== undefined) appendFileSync(values.json, `${JSON.stringify(result)}\n`);
  const { side, name, scenario, action, seed, hit, settled, findings, totalMs } = result;
  const place = `${side} ${name} (${scenario}) ${action} seed=${seed}`;
  const end =
    settled === null
      ? "NOT SETTLED"
      : `at the ${settled.owner}, runs ${settled.runsMs} disk ${settled.diskMs} ` +
        `settled ${settled.settledMs} ms${result.restarted ? ", started anew" : ""}`;
  console.log(`${progress} ${place}: ${hit ? end : `not reached; ${end}`} [${totalMs} ms]`);
  for (const finding of findings) console.log(`    ${finding}`);
}

function saveLogs(
  { side, name, scenario, action, seed, findings }: RoundResult,
  logs: string,
): void {
  mkdirSync(values.logs, { recursive: true });
  const path = join(values.logs, `${side}-${name}-${scenario}-${action}-${seed}.log`);
  writeFileSync(path, `${findings.join("\n")}\n${logs}\n`);
  console.log(`    ${path}`);
}
