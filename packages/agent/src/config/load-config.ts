import { join, resolve } from "node:path";
import { AgentError, messageOf } from "@vmferry/core";
import type { MigrationRole } from "@vmferry/protocol";
import { LOG_LEVELS, type AgentConfig, type ConfigOf } from "./agent-config.ts";
import { parseCommandLine } from "./command-line.ts";
import { parseConfigFile } from "./config-file.ts";
import { parseEnvironment, type Environment } from "./environment.ts";
import { exposureProblems } from "./exposure.ts";
import { parseListenAddress } from "./listen-address.ts";
import { parsePeerList, type PeerAddress } from "./peer-list.ts";
import { printConfig } from "./print-config.ts";
import type { SettingLayer } from "./setting-layer.ts";
import { SettingReader, type ReadFile } from "./setting-reader.ts";
import { usageText } from "./usage-text.ts";

export interface ConfigInputs {
  /** Without the program's own two entries. */
  readonly argv: readonly string[];
  readonly environment: Environment;
  readonly workingDir: string;
  readonly readFile: ReadFile;
  readonly version: string;
}

/** Either a configuration to run with, or a text to print before leaving with exit code 0. */
export type LoadedConfig<Role extends MigrationRole> =
  | { readonly kind: "run"; readonly config: ConfigOf<Role> }
  | { readonly kind: "print"; readonly text: string };

/** The configuration cannot be used; the message lists everything that is wrong with it. */
export class ConfigError extends AgentError<{
  readonly code: "config-invalid";
  readonly problems: readonly string[];
}> {}

export function loadConfig<Role extends MigrationRole>(
  role: Role,
  inputs: ConfigInputs,
): LoadedConfig<Role> {
  const commandLine = parseCommandLine(role, inputs.argv);
  // Whoever asks for help gets it, whatever else is wrong.
  if (commandLine.ask === "help") return { kind: "print", text: usageText(role) };
  if (commandLine.ask === "version") return { kind: "print", text: `${inputs.version}\n` };

  const environment = parseEnvironment(role, inputs.environment);
  const file = readConfigFile(role, commandLine.configFile ?? environment.configFile, inputs);
  const layers = [commandLine, environment, file];
  const reader = new SettingReader(layers, inputs.readFile);
  const config = readConfig(role, reader, inputs.workingDir);
  const problems = [...layers.flatMap((layer) => layer.problems), ...reader.problems];
  // A wrong address is not also an exposed one.
  if (problems.length === 0) problems.push(...exposureProblems(config));
  if (problems.length > 0) {
    throw new ConfigError(problems.join("\n"), { code: "config-invalid", problems });
  }
  if (commandLine.ask === "print-config") return { kind: "print", text: printConfig(config) };
  // readConfig gives the role that it was given, which its type cannot say.
  return { kind: "run", config: deepFreeze(config) as ConfigOf<Role> };
}

function readConfigFile(
  role: MigrationRole,
  path: string | undefined,
  { readFile }: ConfigInputs,
): SettingLayer {
  const values = new Map();
  if (path === undefined) return { values, problems: [] };
  try {
    return parseConfigFile(role, path, readFile(path));
  } catch (error) {
    return { values, problems: [`the configuration file: ${messageOf(error)}`] };
  }
}

function readConfig(role: MigrationRole, reader: SettingReader, workingDir: string): AgentConfig {
  const listen = (key: "apiListen" | "peerListen", port: number): AgentConfig["apiListen"] =>
    reader.parsed(key, "HOST:PORT or [IPV6]:PORT", parseListenAddress) ?? {
      host: "127.0.0.1",
      port,
    };
  const dir = (text: string): string => resolve(workingDir, text);
  const stateDir = dir(reader.text("stateDir") ?? `.vmferry/${role}`);
  const sharedDir = reader.text("sharedDir");
  const tlsDir = reader.text("tlsDir");
  const common = {
    apiListen: listen("apiListen", role === "source" ? 7070 : 7080),
    stateDir,
    imageDir: dir(reader.text("imageDir") ?? join(stateDir, "images")),
    sharedDir: sharedDir === undefined ? null : dir(sharedDir),
    tlsDir: tlsDir === undefined ? null : dir(tlsDir),
    apiToken: reader.secret("apiToken", "apiTokenFile"),
    peerToken: reader.secret("peerToken", "peerTokenFile"),
    insecure: reader.parsed("insecure", "1 or 0", parseSwitch) ?? false,
    qemu: reader.text("qemu") ?? "qemu-system-x86_64",
    logLevel: reader.parsed("logLevel", `one of ${LOG_LEVELS.join(", ")}`, parseLogLevel) ?? "info",
    guestMemoryBytesMax:
      reader.parsed("guestMemoryBytesMax", "a whole number of bytes", parseBytes) ?? null,
    migrationsKeptMax:
      reader.parsed("migrationsKeptMax", "a number from 1 to 100000", wholeUpTo(100_000)) ?? 1000,
    migrationsKeptDays:
      reader.parsed("migrationsKeptDays", "a number from 1 to 3650", wholeUpTo(3650)) ?? 30,
  };
  return role === "source"
    ? { role, ...common, peers: readPeers(reader) }
    : { role, ...common, peerListen: listen("peerListen", 7081) };
}

function readPeers(reader: SettingReader): readonly PeerAddress[] {
  const { peers, problems } = parsePeerList(reader.text("peers") ?? "");
  for (const problem of problems) reader.refuse("peers", problem);
  return peers;
}

function parseSwitch(text: string): boolean | null {
  if (text === "1" || text === "true") return true;
  return text === "0" || text === "false" ? false : null;
}

function parseLogLevel(text: string): AgentConfig["logLevel"] | null {
  return LOG_LEVELS.find((level) => level === text) ?? null;
}

function parseBytes(text: string): number | null {
  const bytes = Number(text);
  return /^\d+$/.test(text) && Number.isSafeInteger(bytes) && bytes > 0 ? bytes : null;
}

function wholeUpTo(max: number): (text: string) => number | null {
  return (text) => (/^[1-9]\d{0,9}$/.test(text) && Number(text) <= max ? Number(text) : null);
}

function deepFreeze<Value extends object>(value: Value): Value {
  for (const part of Object.values(value)) {
    if (typeof part === "object" && part !== null) deepFreeze(part as object);
  }
  return Object.freeze(value);
}
