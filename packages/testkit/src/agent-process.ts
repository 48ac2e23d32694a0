// One agent as its users have it: a process of its own, steered over HTTP.

import { execFile, spawn, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { AgentError, Deferred } from "@vmferry/core";
import { ApiClient } from "./api-client.ts";

/** Also on a machine that has much else to do. */
const START_MS_MAX = 60_000;
const STOP_MS_MAX = 20_000;
const LOG_LINES_MAX = 5000;
/** Agents that are killed leave nothing there; `compileAgents` does. */
const COMPILE_CACHE = fileURLToPath(new URL("../../../.cache/compiled", import.meta.url));

export interface AgentProcessOptions {
  readonly role: "source" | "dest";
  readonly flags?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** What runs the agent, such as `nsenter --net=…`; nothing = directly. */
  readonly wrapper?: readonly string[];
  /** As soon as there is a process; its API does not answer yet. */
  readonly onSpawn?: (spawned: SpawnedAgent) => void;
}

export interface SpawnedAgent {
  readonly pid: number;
  /** Everything that it has written so far. */
  readonly logText: () => string;
}

/**
 * Compiles both agents once for all that are started afterwards, which then start in less time. Node
 * itself looks whether what it finds there is of the same file, Node and flags.
 */
export async function compileAgents(): Promise<void> {
  for (const role of ["source", "dest"] as const) {
    const main = new URL(`../../${role}-agent/src/main.ts`, import.meta.url);
    const script = `await import("${main.href}");
      (await import("node:module")).flushCompileCache();`;
    const flags = [...shebangOf(programOf(role)).flags, "--input-type=module", "--eval"];
    const env = { PATH: process.env["PATH"] ?? "", NODE_COMPILE_CACHE: COMPILE_CACHE };
    await promisify(execFile)(process.execPath, [...flags, script], { env });
  }
}

/** One line of the agent's log. */
export type LogLine = Readonly<Record<string, unknown>>;

export class AgentProcessError extends AgentError<{
  readonly code: "agent-did-not-start" | "agent-did-not-stop";
}> {}

export class AgentProcess {
  readonly role: "source" | "dest";
  readonly api: ApiClient;
  /** Of the dest: where sources dial in. */
  readonly peerPort: number | null;
  readonly #child: ChildProcess;
  readonly #log: LogCollector;
  readonly #exited: Promise<number | null>;

  private constructor(parts: {
    readonly role: "source" | "dest";
    readonly child: ChildProcess;
    readonly log: LogCollector;
    readonly exited: Promise<number | null>;
    readonly api: ApiClient;
  }) {
    this.role = parts.role;
    this.#child = parts.child;
    this.#log = parts.log;
    this.#exited = parts.exited;
    this.api = parts.api;
    const peerPort = parts.log.find("listening for source agents")?.["port"];
    this.peerPort = typeof peerPort === "number" ? peerPort : null;
  }

  /** Starts the agent and resolves when its API answers. */
  static async start(options: AgentProcessOptions): Promise<AgentProcess> {
    const { role, flags = [], environment = {}, wrapper = [] } = options;
    const program = programOf(role);
    const shebang = shebangOf(program);
    const node = [process.execPath, ...shebang.flags];
    const [command, ...rest] = [...wrapper, ...node, program, ...flags];
    const child = spawn(command!, rest, {
      env: {
        PATH: process.env["PATH"] ?? "",
        VMFERRY_LOG_LEVEL: "info",
        NODE_COMPILE_CACHE: COMPILE_CACHE,
        ...shebang.environment,
        ...environment,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const log = new LogCollector(child);
    // Without a process there is no number; the exit below tells of it.
    if (child.pid !== undefined) options.onSpawn?.({ pid: child.pid, logText: () => log.text });
    const exit = new Deferred<number | null>();
    child.once("exit", (code) => {
      exit.resolve(code);
    });
    const timer = AbortSignal.timeout(START_MS_MAX);
    const expired = new Deferred<null>();
    timer.addEventListener("abort", () => {
      expired.resolve(null);
    });
    const listening = await Promise.race([
      log.waitFor("listening"),
      exit.promise.then(() => null),
      expired.promise,
    ]);
    if (listening === null) {
      child.kill("SIGKILL");
      throw new AgentProcessError(`the ${role} agent did not start:\n${log.text}`, {
        code: "agent-did-not-start",
      });
    }
    const token = environment["VMFERRY_API_TOKEN"] ?? null;
    const api = new ApiClient(listening["api"] as string, token);
    return new AgentProcess({ role, child, log, exited: exit.promise, api });
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get log(): readonly LogLine[] {
    return this.#log.lines;
  }

  /** Everything that it wrote, for the message of a failed test. */
  get logText(): string {
    return this.#log.text;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** SIGTERM, and the exit code that follows. Guests stay. */
  async stop(): Promise<number | null> {
    return this.#end("SIGTERM");
  }

  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async #end(signal: NodeJS.Signals): Promise<number | null> {
    this.#child.kill(signal);
    const late = new Deferred<"late">();
    const timer = setTimeout(() => {
      late.resolve("late");
    }, STOP_MS_MAX);
    const outcome = await Promise.race([this.#exited, late.promise]);
    clearTimeout(timer);
    if (outcome !== "late") return outcome;
    this.#child.kill("SIGKILL");
    throw new AgentProcessError(`the ${this.role} agent did not end:\n${this.logText}`, {
      code: "agent-did-not-stop",
    });
  }
}

function programOf(role: "source" | "dest"): string {
  return fileURLToPath(
    new URL(`../../${role}-agent/bin/vmferry-${role}-agent.js`, import.meta.url),
  );
}

/** What the program's own first line gives to Node: tests run it as users do. */
function shebangOf(program: string): {
  readonly flags: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
} {
  const [shebang = ""] = readFileSync(program, "utf8").split("\n", 1);
  const words = shebang.split(" ");
  const assignments = words.filter((word) => /^[A-Z_]+=/.test(word));
  return {
    flags: words.filter((word) => word.startsWith("--")),
    environment: Object.fromEntries(
      assignments.map((word): [string, string] => {
        const at = word.indexOf("=");
        return [word.slice(0, at), word.slice(at + 1)];
      }),
    ),
  };
}

class LogCollector {
  readonly lines: LogLine[] = [];
  readonly #other: string[] = [];
  #begun = "";
  #waiters: { message: string; found: Deferred<LogLine> }[] = [];

  constructor(child: ChildProcess) {
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.setEncoding("utf8");
      stream.on("data", (text: string) => {
        this.#take(text);
      });
    }
  }

  get text(): string {
    return [...this.#other, ...this.lines.slice(-200).map((line) => JSON.stringify(line))].join(
      "\n",
    );
  }

  find(message: string): LogLine | undefined {
    return this.lines.find((line) => line["msg"] === message);
  }

  waitFor(message: string): Promise<LogLine> {
    const found = new Deferred<LogLine>();
    const present = this.find(message);
    if (present !== undefined) found.resolve(present);
    else this.#waiters.push({ message, found });
    return found.promise;
  }

  #take(text: string): void {
    const lines = (this.#begun + text).split("\n");
    this.#begun = lines.pop() ?? "";
    for (const line of lines) this.#takeLine(line);
  }

  #takeLine(text: string): void {
    if (!text.startsWith("{")) {
      this.#other.push(text);
      return;
    }
    const line = JSON.parse(text) as LogLine;
    if (this.lines.push(line) > LOG_LINES_MAX) this.lines.shift();
    const waiting = this.#waiters.filter(({ message }) => message === line["msg"]);
    this.#waiters = this.#waiters.filter(({ message }) => message !== line["msg"]);
    for (const { found } of waiting) found.resolve(line);
  }
}
