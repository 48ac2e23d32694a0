/*
 * vmferry side by side with QEMU's own migration; docs/benchmarks.md tells what the figures mean.
 *   npm run bench -- --help
 * Progress goes to stderr, the tables to stdout. Exit code: 0 when every guest arrived whole or was
 * said not to converge, 1 when a run failed, 2 for wrong usage, 130 when interrupted.
 */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { messageOf } from "@vmferry/core";
import { formatQemuVersion, inspectQemuBinary } from "@vmferry/qemu";
import { GUEST_CACHE } from "@vmferry/testkit";
import { removeAbandoned } from "./abandoned.ts";
import { describeMachine, formatMachine, type Machine } from "./machine.ts";
import type { RunResult } from "./measure.ts";
import type { Method } from "./move.ts";
import { OWN_PREFIX } from "./network.ts";
import { OptionError, parseOptions, type BenchOptions } from "./options.ts";
import { summarizeProfiles } from "./profile-summary.ts";
import { runCommand } from "./run-command.ts";
import { runOnce } from "./run.ts";
import { ratiosOf, summarize, type CaseResult } from "./summary.ts";
import { formatFigures, formatTables } from "./table.ts";

const BEGIN_MARK = "<!-- bench:begin -->";
const END_MARK = "<!-- bench:end -->";

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** What keeps a benchmark from being run here; null = nothing. */
async function findObstacle({ markdownFile }: BenchOptions): Promise<string | null> {
  if (process.getuid?.() !== 0) return "needs root: it makes two network namespaces";
  if (!existsSync(join(GUEST_CACHE, "initrd.img"))) {
    return "there is no demo guest yet: run scripts/setup.sh";
  }
  for (const [program, word] of [
    ["ip", "-V"],
    ["tc", "-V"],
    ["nsenter", "--version"],
  ] as const) {
    const missing = await runCommand(program, word).then(() => null, messageOf);
    if (missing !== null) return `needs the packages iproute2 and util-linux: ${missing}`;
  }
  if (markdownFile === null) return null;
  const text = await readFile(markdownFile, "utf8").catch(() => "");
  const marked = text.includes(BEGIN_MARK) && text.includes(END_MARK);
  return marked ? null : `${markdownFile} has no ${BEGIN_MARK} … ${END_MARK}`;
}

/** All temporary files, those of the lab as well, lie in one directory that tells whose they are. */
async function withinOwnDirectory<T>(work: () => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), OWN_PREFIX));
  process.env["TMPDIR"] = directory;
  try {
    return await work();
  } finally {
    await rm(directory, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Methods take turns, so that a slow minute of the machine does not hit one of them alone. */
async function measureCases(
  options: BenchOptions,
  run: { readonly qemu: string; readonly signal: AbortSignal },
): Promise<readonly CaseResult[]> {
  const { cases, methods, repeat, profileDirectory } = options;
  const results: CaseResult[] = [];
  for (const benchCase of cases) {
    say(`${benchCase.name}: ${benchCase.about}; ${benchCase.link.name}`);
    const able = methods.filter(({ postcopy }) => postcopy === benchCase.postcopy);
    const runs = new Map<Method, RunResult[]>(able.map((method) => [method, []]));
    for (let round = 1; round <= repeat; round++) {
      for (const [method, done] of runs) {
        // Once is enough to know that a method does not get through.
        if (done.some(({ kind }) => kind !== "moved")) continue;
        const result = await runOnce({ benchCase, method, profileDirectory, ...run });
        done.push(result);
        say(`  ${method.name} (${round} of ${repeat}): ${formatRun(result)}`);
      }
    }
    const measured = [...runs].map(([method, done]) => ({ method, runs: done }));
    results.push({ benchCase, methods: measured });
  }
  return results;
}

function formatRun(result: RunResult): string {
  if (result.kind === "moved") return formatFigures(result.figures);
  if (result.kind === "did-not-converge") return `did not converge: ${result.reason}`;
  return `FAILED: ${result.reason}`;
}

async function publish(
  options: BenchOptions,
  { machine, results }: { readonly machine: Machine; readonly results: readonly CaseResult[] },
): Promise<void> {
  const { jsonFile, markdownFile, profileDirectory, repeat } = options;
  const tables = formatTables(results);
  process.stdout.write(tables);
  if (jsonFile !== null) {
    const cases = results.map((result) => ({
      ...result.benchCase,
      methods: result.methods.map(({ method, runs }) => ({
        name: method.name,
        summary: summarize(runs),
        runs,
      })),
      ratios: ratiosOf(result),
    }));
    const report = { at: new Date().toISOString(), machine, repeat, cases };
    await writeFile(jsonFile, `${JSON.stringify(report, null, 2)}\n`);
  }
  if (markdownFile !== null) {
    const text = await readFile(markdownFile, "utf8");
    const [before, after] = [text.indexOf(BEGIN_MARK), text.indexOf(END_MARK)];
    const runs = repeat === 1 ? "One run each" : `Medians of ${repeat} runs`;
    const date = new Date().toISOString().slice(0, 10);
    const note = `${runs}, ${date}. ${formatMachine(machine)}.`;
    const head = text.slice(0, before + BEGIN_MARK.length);
    await writeFile(markdownFile, `${head}\n\n${note}\n\n${tables}\n${text.slice(after)}`);
  }
  if (profileDirectory !== null) {
    const runs = results.flatMap(({ methods }) => methods.flatMap((method) => method.runs));
    const intervals = runs.flatMap((run) => (run.kind === "moved" ? [run.interval] : []));
    say(await summarizeProfiles(profileDirectory, intervals));
  }
}

async function bench(options: BenchOptions, signal: AbortSignal): Promise<void> {
  const obstacle = await findObstacle(options);
  if (obstacle !== null) {
    say(`bench: ${obstacle}`);
    process.exitCode = 2;
    return;
  }
  await removeAbandoned();
  if (options.profileDirectory !== null) await mkdir(options.profileDirectory, { recursive: true });
  const binary = await inspectQemuBinary(process.env["VMFERRY_QEMU"] ?? "qemu-system-x86_64");
  const machine = describeMachine(formatQemuVersion(binary.version));
  say(formatMachine(machine));
  const results = await withinOwnDirectory(() =>
    measureCases(options, { qemu: binary.path, signal }),
  );
  await publish(options, { machine, results });
  const failed = results.some(({ methods }) =>
    methods.some(({ runs }) => runs.some(({ kind }) => kind === "failed")),
  );
  if (failed) process.exitCode = 1;
}

async function main(): Promise<void> {
  const interrupted = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => {
      if (interrupted.signal.aborted) return;
      say("bench: ending; guests, agents and namespaces go");
      interrupted.abort(new Error(`interrupted by ${name}`));
    });
  }
  try {
    const options = parseOptions(process.argv.slice(2));
    if (typeof options === "string") console.log(options);
    else await bench(options, interrupted.signal);
  } catch (error) {
    say(`bench: ${messageOf(error)}`);
    process.exitCode = error instanceof OptionError ? 2 : interrupted.signal.aborted ? 130 : 1;
  }
}

await main();
