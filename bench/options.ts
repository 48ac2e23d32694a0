import { parseArgs } from "node:util";
import { AgentError, messageOf } from "@vmferry/core";
import { FULL_CASES, POSTCOPY_CASES, QUICK_CASES, type BenchCase } from "./cases.ts";
import type { Method } from "./move.ts";
import { NATIVE_MULTIFD, NATIVE_PLAIN, NATIVE_POSTCOPY } from "./native.ts";
import { VMFERRY, VMFERRY_POSTCOPY, VMFERRY_STALL } from "./vmferry.ts";

const METHODS: readonly Method[] = [
  ...[NATIVE_PLAIN, NATIVE_MULTIFD, VMFERRY],
  ...[NATIVE_POSTCOPY, VMFERRY_POSTCOPY, VMFERRY_STALL],
];
const CASES: readonly BenchCase[] = [...QUICK_CASES, ...FULL_CASES, ...POSTCOPY_CASES];

export const USAGE = `Compares vmferry with QEMU's own migration; prints a table as Markdown.

  npm run bench -- [options]

  --quick           one small guest, also with a disk, once: less than three minutes
  --postcopy        only guests whose memory follows them
  --case NAME       only this case; may be given several times
  --method NAME     only this method, such as "vmferry" or "native plain"; several times as well
  --repeat N        runs of each case and method, of which the medians count (3; with --quick 1)
  --json FILE       also writes every figure of every run
  --markdown FILE   also puts the table between the bench:begin and bench:end comments in FILE
  --cpu-prof DIR    has the agents write CPU profiles to DIR, and says where their time went
  --list            names the cases and methods
  --help

It needs root, for network namespaces, and the packages iproute2 and util-linux.`;

export interface BenchOptions {
  readonly cases: readonly BenchCase[];
  readonly methods: readonly Method[];
  readonly repeat: number;
  readonly jsonFile: string | null;
  readonly markdownFile: string | null;
  readonly profileDirectory: string | null;
}

export class OptionError extends AgentError<{ readonly code: "usage" }> {}

const REPEAT_MAX = 20;

/** Text to print and leave, or what to measure. Throws OptionError. */
export function parseOptions(words: readonly string[]): BenchOptions | string {
  const values = parseFlags(words);
  if (values.help === true) return USAGE;
  if (values.list === true) return listNames();
  const quick = values.quick === true;
  return {
    cases: select("case", {
      all: casesWithout(values),
      known: CASES,
      names: values.case,
    }),
    methods: select("method", { all: METHODS, known: METHODS, names: values.method }),
    repeat: parseRepeat(values.repeat ?? (quick ? "1" : "3")),
    jsonFile: values.json ?? null,
    markdownFile: values.markdown ?? null,
    profileDirectory: values["cpu-prof"] ?? null,
  };
}

/** Where none is named. */
function casesWithout(values: { readonly quick?: boolean; readonly postcopy?: boolean }) {
  if (values.postcopy === true) return POSTCOPY_CASES;
  return values.quick === true ? QUICK_CASES : [...FULL_CASES, ...POSTCOPY_CASES];
}

function parseFlags(words: readonly string[]) {
  try {
    const { values } = parseArgs({
      args: [...words],
      options: {
        quick: { type: "boolean" },
        postcopy: { type: "boolean" },
        case: { type: "string", multiple: true },
        method: { type: "string", multiple: true },
        repeat: { type: "string" },
        json: { type: "string" },
        markdown: { type: "string" },
        "cpu-prof": { type: "string" },
        list: { type: "boolean" },
        help: { type: "boolean" },
      },
    });
    return values;
  } catch (error) {
    throw usageError(messageOf(error));
  }
}

function select<T extends { readonly name: string }>(
  what: string,
  from: {
    readonly all: readonly T[];
    readonly known: readonly T[];
    readonly names: readonly string[] | undefined;
  },
): readonly T[] {
  const { all, known, names } = from;
  if (names === undefined) return all;
  return names.map((name) => {
    const found = known.find((candidate) => candidate.name === name);
    if (found !== undefined) return found;
    const choices = known.map((candidate) => candidate.name).join(", ");
    throw usageError(`there is no ${what} "${name}"; there are: ${choices}`);
  });
}

function parseRepeat(text: string): number {
  const repeat = Number(text);
  if (Number.isInteger(repeat) && repeat >= 1 && repeat <= REPEAT_MAX) return repeat;
  throw usageError(`--repeat has to be 1 to ${REPEAT_MAX}`);
}

function listNames(): string {
  const cases = CASES.map(({ name, about, link }) => `  ${name.padEnd(18)}${about}; ${link.name}`);
  const methods = METHODS.map(({ name }) => `  ${name}`);
  return ["cases:", ...cases, "methods:", ...methods].join("\n");
}

function usageError(message: string): OptionError {
  return new OptionError(message, { code: "usage" });
}
