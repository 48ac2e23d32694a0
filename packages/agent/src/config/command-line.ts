import { parseArgs } from "node:util";
import type { MigrationRole } from "@vmferry/protocol";
import { closestNameHint } from "./closest-name.ts";
import type { RawValue, SettingLayer } from "./setting-layer.ts";
import { flagOf, settingsOf, variableOf, type Setting, type SettingKey } from "./setting-table.ts";

export interface CommandLine extends SettingLayer {
  readonly configFile: string | undefined;
  /** What to print instead of running. */
  readonly ask: Ask | null;
}

type Ask = (typeof ASKS)[number];

interface Option {
  readonly name: string;
  readonly rawName: string;
  readonly value: string | undefined;
  readonly inlineValue: boolean | undefined;
}

const ASKS = ["help", "version", "print-config"] as const;
const SWITCHES: ReadonlySet<string> = new Set([...ASKS, "insecure"]);

/** `argv` is without the program's own two entries. */
export function parseCommandLine(role: MigrationRole, argv: readonly string[]): CommandLine {
  const settings = new Map(settingsOf(role).map((setting) => [flagName(setting.key), setting]));
  const names = new Set([...settings.keys(), "config", ...ASKS]);
  const values = new Map<SettingKey, RawValue>();
  const given = new Map<string, string | undefined>();
  const problems: string[] = [];
  for (const token of tokenize(names, argv)) {
    const problem =
      token.kind === "positional"
        ? `${token.value} is not a flag, and nothing else is expected`
        : (optionProblem(token, names, settings.get(token.name)) ??
          (given.has(token.name) ? `${token.rawName} is given twice` : null));
    if (problem !== null) problems.push(problem);
    if (token.kind === "positional" || problem !== null) continue;
    given.set(token.name, token.value);
    const setting = settings.get(token.name);
    if (setting !== undefined) {
      values.set(setting.key, { text: token.value ?? "1", origin: token.rawName });
    }
  }
  const ask = ASKS.find((one) => given.has(one)) ?? null;
  return { values, problems, configFile: given.get("config"), ask };
}

type Token =
  ({ readonly kind: "option" } & Option) | { readonly kind: "positional"; readonly value: string };

function tokenize(names: ReadonlySet<string>, argv: readonly string[]): Token[] {
  const options = Object.fromEntries(
    [...names].map((name) => [
      name,
      { type: SWITCHES.has(name) ? ("boolean" as const) : ("string" as const) },
    ]),
  );
  // Not strict: the messages of strict mode know neither hints nor variables.
  const { tokens } = parseArgs({
    args: argv.map((argument) => (argument === "-h" ? "--help" : argument)),
    options,
    strict: false,
    tokens: true,
  });
  return tokens.filter((token) => token.kind !== "option-terminator");
}

function optionProblem(
  { name, rawName, value, inlineValue }: Option,
  names: ReadonlySet<string>,
  setting: (Setting & { readonly key: SettingKey }) | undefined,
): string | null {
  if (!names.has(name)) {
    return `there is no ${rawName}${closestNameHint(
      rawName,
      [...names].map((one) => `--${one}`),
    )}`;
  }
  if (setting?.secret === true) {
    return `${rawName} would show the secret to every user of this host: use ${rawName}-file or ${variableOf(setting.key)}`;
  }
  if (SWITCHES.has(name)) return value === undefined ? null : `${rawName} takes no value`;
  // parseArgs takes the next flag for the value of one that has none.
  const missing = value === undefined || (inlineValue !== true && value.startsWith("-"));
  return missing ? `${rawName} needs a value` : null;
}

function flagName(key: string): string {
  return flagOf(key).slice(2);
}
