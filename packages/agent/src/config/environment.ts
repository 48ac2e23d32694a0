import type { MigrationRole } from "@vmferry/protocol";
import { closestNameHint } from "./closest-name.ts";
import type { RawValue, SettingLayer } from "./setting-layer.ts";
import { SETTINGS, settingsOf, variableOf, type SettingKey } from "./setting-table.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export interface EnvironmentLayer extends SettingLayer {
  readonly configFile: string | undefined;
}

const CONFIG_FILE = "VMFERRY_CONFIG";
/** Variables of the command line, the scripts and the fault tests, which share the prefix. */
const OF_OTHER_PROGRAMS = ["VMFERRY_API", "VMFERRY_GUEST_CACHE", "VMFERRY_FAILPOINTS"];

/**
 * An empty variable counts as absent, as compose files pass one on. A variable of the other role
 * is nobody's mistake: one environment may start both agents.
 */
export function parseEnvironment(role: MigrationRole, environment: Environment): EnvironmentLayer {
  const known = [...SETTINGS.map(({ key }) => variableOf(key)), CONFIG_FILE, ...OF_OTHER_PROGRAMS];
  const problems = Object.keys(environment)
    .filter((name) => name.startsWith("VMFERRY_") && !known.includes(name))
    .map((name) => `there is no ${name}${closestNameHint(name, known)}`);
  const values = new Map<SettingKey, RawValue>();
  for (const { key } of settingsOf(role)) {
    const origin = variableOf(key);
    const text = environment[origin];
    if (text !== undefined && text !== "") values.set(key, { text, origin });
  }
  const configFile = environment[CONFIG_FILE];
  return { values, problems, configFile: configFile === "" ? undefined : configFile };
}
