/*
 * `npm run demo`: a real Linux guest under QEMU moves from one agent to another on this machine.
 *   npm run demo -- --help
 * Exit code: 0 only when the guest was seen working at the destination, 1 when it was not, 2 for
 * wrong usage, 128 plus the signal when interrupted. Whatever happens, nothing is left behind.
 */
import { AgentError, messageOf } from "@vmferry/core";
import { Lab } from "@vmferry/testkit";
import { DemoOptionError, parseDemoOptions, USAGE, type DemoOptions } from "./demo/demo-options.ts";
import { failedOutcome, outcomeOf, summaryText, type DemoOutcome } from "./demo/demo-outcome.ts";
import { runDemo } from "./demo/demo-run.ts";
import { failureReport, latestMigrations } from "./demo/failure-report.ts";
import {
  interruptionBehind,
  listenForInterruption,
  unlessInterrupted,
} from "./demo/interruption.ts";

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

interface Ending {
  readonly outcome: DemoOutcome;
  readonly exitCode: number;
}

class DemoFindingsError extends AgentError<{
  readonly code: "demo-findings";
  readonly outcome: DemoOutcome;
}> {}

process.exit(await main(process.argv.slice(2)));

async function main(words: readonly string[]): Promise<number> {
  try {
    const options = parseDemoOptions(words);
    if (!options.help) return await demonstrate(options);
    process.stdout.write(USAGE);
    return 0;
  } catch (error) {
    if (!(error instanceof DemoOptionError)) throw error;
    process.stderr.write(`demo: ${error.message}\n\n${USAGE}`);
    return EXIT_USAGE;
  }
}

async function demonstrate(options: DemoOptions): Promise<number> {
  const signal = listenForInterruption();
  say(introduction(options));
  const opening = Lab.open();
  let ending: Ending;
  try {
    ending = await attempt({ opening, options, signal });
  } catch (error) {
    ending = await failed({ opening, signal }, error);
  }
  await close(opening);
  if (options.json) say(JSON.stringify(ending.outcome));
  return ending.exitCode;
}

interface Attempt {
  readonly opening: Promise<Lab>;
  readonly options: DemoOptions;
  readonly signal: AbortSignal;
}

async function attempt({ opening, options, signal }: Attempt): Promise<Ending> {
  const startedMs = performance.now();
  const lab = await unlessInterrupted(opening, signal);
  say(`Both agents run: source ${lab.source.api.url}, destination ${lab.dest.api.url}`);
  const work = runDemo({ lab, options, say, signal });
  const outcome = outcomeOf(await unlessInterrupted(work, signal));
  if (!outcome.ok) {
    const detail = { code: "demo-findings", outcome } as const;
    throw new DemoFindingsError(outcome.reasons.join("\n"), detail);
  }
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  say(`\nSummary\n${summaryText(outcome)}`);
  say(`\nOK: the guest works at the destination, undamaged. ${seconds} s in all.`);
  if (options.keep) await keepRunning(lab, signal);
  return { outcome, exitCode: 0 };
}

async function keepRunning(lab: Lab, signal: AbortSignal): Promise<void> {
  say(`\nEverything goes on until Ctrl-C. For instance:
  npx vmferry --api ${lab.source.api.url} list
  npx vmferry --api ${lab.dest.api.url} guest show demo
  tail -f ${lab.destSerialLog()}`);
  const { promise: never } = Promise.withResolvers<never>();
  await unlessInterrupted(never, signal).catch(() => undefined);
}

async function failed(
  { opening, signal }: Omit<Attempt, "options">,
  error: unknown,
): Promise<Ending> {
  const interruption = await interruptionBehind(error, signal);
  if (interruption !== null) {
    const reason = interruption.message;
    process.stderr.write(`\nThe demo was ended early: ${reason}. Cleaning up.\n`);
    return { outcome: failedOutcome(reason), exitCode: interruption.detail.exitCode };
  }
  const reason = messageOf(error);
  const lab = await opening.catch(() => null);
  const report = lab === null ? "" : `${await failureReport(lab)}\n`;
  process.stderr.write(`\nThe demo failed: ${reason}\n${report}`);
  const outcome =
    error instanceof DemoFindingsError
      ? error.detail.outcome
      : { ...failedOutcome(reason), ...(lab === null ? {} : await latestMigrations(lab)) };
  return { outcome, exitCode: EXIT_FAILED };
}

/** Also where it is still opening: what it has started by then is known only afterwards. */
async function close(opening: Promise<Lab>): Promise<void> {
  const lab = await opening.catch(() => null);
  await lab?.close();
}

function introduction({ memoryMib, diskMib, workload }: DemoOptions): string {
  const disk =
    diskMib === 0
      ? ""
      : `
It does the same on its disk of ${diskMib} MiB, which goes with it.`;
  return `vmferry demo: moves a running Linux guest of ${memoryMib} MiB from one agent to another.
Its workload rewrites pages in ${workload["mem"] ?? ""} of memory all the time, knows what each of them has to
hold, and looks whether it does; a hundred times a second it gives a sign of life on its console.${disk}
`;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
