// A Docker engine for tests: the one that is there, or, as root on a Debian 12 without one, the one
// that a script next to the checkout brings.

import { execFile, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;
const START_MS_MAX = 300_000;

export type Environment = Readonly<Record<string, string | undefined>>;

const execute = promisify(execFile);

/** `up`, `env` (prints exports for a shell) and `down`. */
const SCRIPT =
  process.env["DOCKER_ENGINE_SCRIPT"] ??
  fileURLToPath(new URL("../../../shared/tools/docker-engine.sh", import.meta.url));

/** Why no engine can be had here, or null. */
export function engineIsMissing(): string | null {
  if (answers(process.env)) return null;
  if (!existsSync(SCRIPT)) return "no Docker engine with compose answers here";
  return process.geteuid?.() === 0 ? null : "only root can start a Docker engine";
}

export class DockerEngine {
  /** That of a process which talks to it. */
  readonly environment: Environment;
  readonly #isOurs: boolean;

  private constructor(environment: Environment, isOurs: boolean) {
    this.environment = environment;
    this.#isOurs = isOurs;
  }

  static async open(): Promise<DockerEngine> {
    const missing = engineIsMissing();
    if (missing !== null) throw new Error(missing);
    if (answers(process.env)) return new DockerEngine(process.env, false);
    const environment = await scriptEnvironment();
    if (answers(environment)) return new DockerEngine(environment, false);
    const engine = new DockerEngine(environment, true);
    try {
      await execute("bash", [SCRIPT, "up"], { timeout: START_MS_MAX, maxBuffer: OUTPUT_BYTES_MAX });
    } catch (error) {
      await engine.close();
      throw error;
    }
    return engine;
  }

  /** An engine that was there before stays. */
  async close(): Promise<void> {
    if (this.#isOurs) await execute("bash", [SCRIPT, "down"]);
  }
}

function answers(environment: Environment): boolean {
  return [["version"], ["compose", "version"]].every(
    (words) => spawnSync("docker", words, { env: environment, stdio: "ignore" }).status === 0,
  );
}

async function scriptEnvironment(): Promise<Environment> {
  const program = 'exports=$(bash "$0" env) && eval "$exports" && env -0';
  const { stdout } = await execute("bash", ["-c", program, SCRIPT]);
  const entries = stdout.split("\0").filter((entry) => entry.includes("="));
  return Object.fromEntries(
    entries.map((entry) => {
      const at = entry.indexOf("=");
      return [entry.slice(0, at), entry.slice(at + 1)];
    }),
  );
}
