// The services of docker-compose.yml under a project name and on ports of their own, so that nobody
// else's are touched.

import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { systemClock } from "@vmferry/core";
import { ApiClient, GuestConsole } from "@vmferry/testkit";
import { DockerEngine, type Environment } from "./docker-engine.ts";

const CHECKOUT = fileURLToPath(new URL("../../", import.meta.url));
const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;
const API_PORTS = { source: "7070", dest: "7080" } as const;

export type AgentService = keyof typeof API_PORTS;

const execute = promisify(execFile);

export class ComposeStack {
  readonly #engine: DockerEngine;
  readonly #directory: string;
  readonly #environment: Environment;
  readonly #consoles: GuestConsole[] = [];
  readonly #followers: ChildProcess[] = [];

  private constructor(engine: DockerEngine, directory: string) {
    this.#engine = engine;
    this.#directory = directory;
    const inherited = Object.entries(engine.environment).filter(
      ([name]) => !/^(VMFERRY|COMPOSE)_/.test(name),
    );
    this.#environment = {
      ...Object.fromEntries(inherited),
      COMPOSE_PROJECT_NAME: `vmferry-test-${process.pid}`,
      // The engine chooses.
      SOURCE_PORT: "0",
      DEST_PORT: "0",
    };
  }

  /** Nothing runs yet. */
  static async open(): Promise<ComposeStack> {
    const engine = await DockerEngine.open();
    return new ComposeStack(engine, await mkdtemp(join(tmpdir(), "vmferry-compose-")));
  }

  /** Its standard output; rejects with what it said when it fails. */
  async compose(...words: readonly string[]): Promise<string> {
    const { stdout } = await execute("docker", composeWords(words), {
      cwd: CHECKOUT,
      env: this.#environment,
      maxBuffer: OUTPUT_BYTES_MAX,
    });
    return stdout;
  }

  /** The output of a command in the service's container. */
  exec(service: AgentService, ...words: readonly string[]): Promise<string> {
    return this.compose("exec", "-T", service, ...words);
  }

  /** Where the API is reached from outside now: the port is another one after a restart. */
  async url(service: AgentService): Promise<string> {
    const address = await this.compose("port", service, API_PORTS[service]);
    return `http://${address.trim()}`;
  }

  async token(): Promise<string> {
    return (await this.exec("source", "cat", "/var/lib/vmferry/tokens/api")).trim();
  }

  async api(service: AgentService): Promise<ApiClient> {
    return new ApiClient(await this.url(service), await this.token());
  }

  /** What a shell in the checkout prints, line by line, until nobody reads on. */
  async *shell(program: string): AsyncGenerator<string> {
    const child = spawn("bash", ["-euc", program], {
      cwd: CHECKOUT,
      env: this.#environment,
      stdio: ["ignore", "pipe", "inherit"],
      // With whatever it has started: it ends as a group.
      detached: true,
    });
    try {
      yield* createInterface({ input: child.stdout });
    } finally {
      const { pid, exitCode, signalCode } = child;
      if (pid !== undefined && exitCode === null && signalCode === null) {
        process.kill(-pid, "SIGKILL");
        await once(child, "exit");
      }
    }
  }

  /** Follows a log in the service's container, which need not be there yet. */
  follow(service: AgentService, path: string, from: "beginning" | "now"): GuestConsole {
    const copy = join(this.#directory, `${service}-${this.#consoles.length}.log`);
    const file = openSync(copy, "a");
    const lines = from === "now" ? "--lines=0" : "--lines=+1";
    const tail = ["tail", lines, "--follow=name", "--retry", path];
    const follower = spawn("docker", composeWords(["exec", "-T", service, ...tail]), {
      cwd: CHECKOUT,
      env: this.#environment,
      stdio: ["ignore", file, "ignore"],
    });
    closeSync(file);
    this.#followers.push(follower);
    const guestConsole = GuestConsole.open(copy, { clock: systemClock });
    this.#consoles.push(guestConsole);
    return guestConsole;
  }

  /** Containers, networks and volumes go; so does the engine, unless it was there before. */
  async close(): Promise<void> {
    for (const guestConsole of this.#consoles) guestConsole.close();
    await Promise.all(this.#followers.map(end));
    try {
      await this.compose("down", "--volumes", "--timeout", "5");
    } finally {
      await this.#engine.close();
      await rm(this.#directory, { recursive: true });
    }
  }
}

/** The user's own settings for compose are not the test's. */
function composeWords(words: readonly string[]): string[] {
  return ["compose", "--env-file", "/dev/null", "--file", "docker-compose.yml", ...words];
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
}
