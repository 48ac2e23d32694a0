/**
 * Kills either agent at a random instant of the migration of a guest that works on its memory and on
 * its disk, starts it anew a moment later, and looks who runs the guest:
 *
 *   node test/soak/random-kills.ts [--rounds 200] [--seed N] [--json FILE] [--phase drain|post-copy]
 *
 * Half of the instants are drawn over all of the migration and a bit more, half from the stun on. With
 * a phase it is post-copy over a slow link, and all of them are while the guest's memory goes to a store
 * (`drain`), or while it follows the guest. A line a round; exits with 1 where a guest was not on exactly one side, whole, within 5 s.
 */
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { awaitSettled, findingsOf, type Settled } from "../failpoints/await-settled.ts";
import { FaultBench } from "../failpoints/fault-bench.ts";
import type { Side } from "../failpoints/scenarios.ts";
import { SeededRandom } from "../failpoints/seeded-random.ts";
import { pause } from "../moving-guest.ts";
import { PhaseWatch } from "./phase-watch.ts";

interface KillRound {
  readonly round: number;
  readonly seed: number;
  readonly side: Side;
  /** The migration at the source, when it was last seen before the death. */
  readonly phase: string;
  readonly killedMs: number;
  readonly restartMs: number;
  /** From the spawn of the new agent until its API answered. */
  readonly startMs: number;
  readonly settled: Settled | null;
  readonly findings: readonly string[];
}

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "200" },
    seed: { type: "string", default: "1" },
    json: { type: "string" },
    phase: { type: "string" },
    logs: { type: "string", default: "/tmp/random-kill-logs" },
  },
});
const BUSY = { mem: "48M", rate: "3000", diskrate: "200", diskbytes: "32K" };
/** Changes all of its memory while it is sent for the first time, so that all of it has to follow. */
const FOLLOWED = { mem: "48M", rate: "20000", hot: "0:0", bytes: "64", diskrate: "50" };
const FOLLOWING = { mode: "post-copy", limits: { bandwidthBytesPerSecond: 12 * 2 ** 20 } };
/** From the hand-over to well before everything is there. */
const FOLLOW_WINDOW_MS = 2000;
/** From the request to about the stun of a guest that outruns the link. */
const DRAIN_WINDOW_MS = 5000;
const RUNS_MS_MAX = 5000;
const SETTLE_MS_MAX = 100_000;
/** From the stun to well behind the end of the hand-over. */
const STUN_WINDOW_MS = 400;
const RESTART_MS_MAX = 1000;
const ROUNDS_PER_BENCH = 40;

const { phase } = values;
const isPostcopy = phase !== undefined;
if (isPostcopy && phase !== "drain" && phase !== "post-copy") {
  throw new Error("--phase can be drain or post-copy");
}

await runAll();

async function runAll(): Promise<void> {
  const rounds: KillRound[] = [];
  /** How long a whole migration takes, as the last ones did. */
  let typicalMs = 3000;
  let bench: FaultBench | null = null;
  console.log(`${values.rounds} rounds, seed ${values.seed}`);
  try {
    for (let round = 1; round <= Number(values.rounds); round++) {
      if (round % ROUNDS_PER_BENCH === 0) {
        await bench?.close();
        bench = null;
      }
      bench ??= await FaultBench.open(isPostcopy ? FOLLOWED : BUSY);
      const seed = Number(values.seed) + round - 1;
      const { result, totalMs } = await runSafely(bench, { round, seed, typicalMs });
      if (totalMs !== null) typicalMs = 0.7 * typicalMs + 0.3 * totalMs;
      rounds.push(result);
      report(result);
      if (result.findings.length === 0) continue;
      saveLogs(result, bench.logs);
      await bench.close();
      bench = null;
    }
  } finally {
    await bench?.close();
  }
  summarize(rounds);
}

interface Draw {
  readonly round: number;
  readonly seed: number;
  readonly typicalMs: number;
}

interface Outcome {
  readonly result: KillRound;
  /** Of a migration that had ended before the death. */
  readonly totalMs: number | null;
}

async function runSafely(bench: FaultBench, draw: Draw): Promise<Outcome> {
  try {
    return await killOnce(bench, draw);
  } catch (error) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    const nothing = { phase: "?", killedMs: 0, restartMs: 0, startMs: 0, settled: null } as const;
    const { round, seed } = draw;
    const findings = [`broke: ${text.slice(0, 2000)}`];
    return { result: { round, seed, side: "source", ...nothing, findings }, totalMs: null };
  }
}

async function killOnce(bench: FaultBench, { round, seed, typicalMs }: Draw): Promise<Outcome> {
  const random = new SeededRandom(seed);
  const side = random.pick<Side>(["source", "dest"]);
  const from =
    phase === "post-copy" ? phase : random.next() < 0.5 && !isPostcopy ? "stun" : "begin";
  const beginWindowMs = phase === "drain" ? DRAIN_WINDOW_MS : typicalMs * 1.2;
  const windowMs = { begin: beginWindowMs, stun: STUN_WINDOW_MS, "post-copy": FOLLOW_WINDOW_MS };
  const instantMs = random.next() * windowMs[from];
  const restartMs = Math.round(random.between(0, RESTART_MS_MAX));
  const guest = await bench.guestAtSource();
  const destConsole = await bench.followDest(guest);
  let owner: Side | null = null;
  try {
    const beganMs = performance.now();
    const id = await guest.migrate(isPostcopy ? FOLLOWING : {});
    const watch = new PhaseWatch(guest, id);
    const killedAtMs = await watch.waitUntil({ from, beganMs, instantMs });
    await bench.agent(side).kill();
    watch.stop();
    await pause(restartMs);
    const sinceMs = performance.now();
    await bench.start(side);
    const startMs = Math.round(performance.now() - sinceMs);
    const judged = { bench, guest, destConsole, id };
    const times = { sinceMs, timeoutMs: SETTLE_MS_MAX };
    const { settled, unmet } = await awaitSettled(judged, times);
    owner = settled?.owner ?? null;
    const findings = unmet.map((what) => `not settled: ${what}`);
    if (owner !== null) findings.push(...(await findingsOf(judged, owner)));
    const runsMs = settled?.runsMs ?? null;
    if (runsMs !== null && runsMs > RUNS_MS_MAX) findings.push(`back only after ${runsMs} ms`);
    const { phase, endedMs } = watch;
    const killedMs = Math.round(killedAtMs - beganMs);
    const when = { round, seed, side, phase, killedMs, restartMs, startMs };
    const totalMs = endedMs === null ? null : endedMs - beganMs;
    return { result: { ...when, settled, findings }, totalMs };
  } finally {
    destConsole.close();
    if (owner !== "source") await bench.endGuest();
  }
}

function report(result: KillRound): void {
  if (values.json !== undefined) appendFileSync(values.json, `${JSON.stringify(result)}\n`);
  const { round, seed, side, phase, killedMs, restartMs, startMs, settled, findings } = result;
  const end =
    settled === null
      ? "NOT SETTLED"
      : `at the ${settled.owner}, runs ${settled.runsMs} disk ${settled.diskMs} ` +
        `settled ${settled.settledMs} ms`;
  console.log(
    `${round} seed=${seed} ${side} killed at ${killedMs} ms in ${phase}, ` +
      `restarted ${restartMs} ms later, answers after ${startMs}: ${end}`,
  );
  for (const finding of findings) console.log(`    ${finding}`);
}

function saveLogs({ round, seed, findings }: KillRound, logs: string): void {
  mkdirSync(values.logs, { recursive: true });
  writeFileSync(join(values.logs, `${round}-${seed}.log`), `${findings.join("\n")}\n${logs}\n`);
}

function summarize(rounds: readonly KillRound[]): void {
  const settled = rounds.flatMap((round) => round.settled ?? []);
  for (const name of ["runsMs", "diskMs", "settledMs"] as const) {
    const times = settled.flatMap((one) => one[name] ?? []).toSorted((a, b) => a - b);
    const at = (share: number): number =>
      times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;
    console.log(`${name}: p50 ${at(0.5)} p99 ${at(0.99)} max ${times.at(-1) ?? 0}`);
  }
  const outcomes = new Map<string, number>();
  for (const { side, phase, settled: one } of rounds) {
    const key = `${side} killed in ${phase}: ${one === null ? "not settled" : `guest at the ${one.owner}`}`;
    outcomes.set(key, (outcomes.get(key) ?? 0) + 1);
  }
  for (const [key, count] of [...outcomes].toSorted()) console.log(`${count} × ${key}`);
  const bad = rounds.filter(({ findings }) => findings.length > 0).length;
  console.log(`${rounds.length - bad} of ${rounds.length} rounds clean`);
  process.exitCode = bad === 0 ? 0 : 1;
}
