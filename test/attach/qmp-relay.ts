// A program that passes on what is said between a socket of its own and another one, as socat does.

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { assert } from "@vmferry/core";

/** Its arguments: where it listens, and where QEMU does. */
const RELAY = `
const { createConnection, createServer } = require("node:net");
const [path, behind] = process.argv.slice(1);
createServer((near) => {
  const far = createConnection(behind);
  for (const [one, other] of [[near, far], [far, near]]) {
    one.on("error", () => undefined).on("close", () => other.destroy()).pipe(other);
  }
}).listen(path, () => process.stdout.write("listening"));
`;

export class QmpRelay {
  readonly path: string;
  readonly #child: ChildProcess;

  private constructor(path: string, child: ChildProcess) {
    this.path = path;
    this.#child = child;
  }

  static async start(path: string, behind: string): Promise<QmpRelay> {
    const child = spawn(process.execPath, ["-e", RELAY, path, behind], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(child.stdout, "data");
    return new QmpRelay(path, child);
  }

  get pid(): number {
    assert(this.#child.pid !== undefined, "it has begun");
    return this.#child.pid;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async end(): Promise<void> {
    if (!this.isRunning) return;
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exited;
  }
}
