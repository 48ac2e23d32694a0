// Shares for tests that hang, fail or are gone: mounts of fault/failing-share.c, without any cache.
// Two of them over one directory are what two hosts have of one server.

import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { constants } from "node:os";
import { promisify } from "node:util";

const run = promisify(execFile);
const SOURCE = fileURLToPath(new URL("fault/failing-share.c", import.meta.url));

/** Of files of pages alone. */
export type ShareOperation = "open" | "read" | "write" | "fsync";

/** @param program where it is to lie */
export async function compileFailingShare(program: string): Promise<void> {
  await run("gcc", ["-O2", "-o", program, SOURCE]);
}

export class FailingShare {
  /** The mountpoint. */
  readonly path: string;
  readonly #program: string;
  readonly #directory: string;
  readonly #faults: string;
  #daemon: ChildProcess | null = null;

  /** @param directory what is shared */
  constructor(program: string, directory: string, path: string) {
    this.#program = program;
    this.#directory = directory;
    this.path = path;
    this.#faults = `${path}.faults`;
  }

  /** Needs root. */
  async mount(): Promise<void> {
    await mkdir(this.path, { recursive: true });
    await mkdir(this.#faults, { recursive: true });
    const daemon = spawn(this.#program, [this.#directory, this.path, this.#faults], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#daemon = daemon;
    const isMounted = once(createInterface({ input: daemon.stdout }), "line");
    const ended = once(daemon, "exit").then(([code]) => {
      throw new Error(`the share cannot be mounted: status ${code}`);
    });
    await Promise.race([isMounted, ended]);
    ended.catch(() => undefined);
  }

  async fail(operation: ShareOperation, code: keyof typeof constants.errno): Promise<void> {
    await writeFile(join(this.#faults, operation), String(constants.errno[code]));
  }

  /** Whoever asks for anything waits until it goes on. */
  hang(): void {
    this.#daemon?.kill("SIGSTOP");
  }

  goOn(): void {
    this.#daemon?.kill("SIGCONT");
  }

  /** Nobody answers any more, at once. */
  async die(): Promise<void> {
    const daemon = this.#daemon;
    this.#daemon = null;
    if (daemon === null) return;
    const ended = once(daemon, "exit");
    daemon.kill("SIGKILL");
    await ended;
  }

  /** As it was, whatever was done to it. */
  async heal(): Promise<void> {
    await rm(this.#faults, { recursive: true, force: true });
    await mkdir(this.#faults);
    this.goOn();
    if (this.#daemon !== null) return;
    await run("umount", ["-l", this.path]);
    await this.mount();
  }

  async close(): Promise<void> {
    await this.die();
    await run("umount", ["-l", this.path]);
  }
}
