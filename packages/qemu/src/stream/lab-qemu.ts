import { spawn, type ChildProcess } from "node:child_process";
import { createConnection, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";

import { Deferred } from "@vmferry/core";

/*
 * For tests of the codec against real QEMUs: one QEMU, driven by a bare QMP exchange. It sends what
 * the client of this package has no business with, such as dumps of guest memory.
 */

const WAIT_MS_MAX = 60_000;
const POLL_MS = 20;

export const LAB_QEMU_BINARY = process.env["VMFERRY_QEMU"] ?? "qemu-system-x86_64";

type Reply = Record<string, unknown>;

export class LabQemu {
  readonly #process: ChildProcess;
  readonly #socket: Socket;
  readonly #replies: Deferred<Reply>[] = [];
  readonly #exited: Promise<void>;

  private constructor(child: ChildProcess, socket: Socket) {
    this.#process = child;
    this.#socket = socket;
    this.#exited = new Promise((resolve) =>
      child.once("exit", () => {
        resolve();
      }),
    );
    createInterface({ input: socket }).on("line", (line) => {
      const message = JSON.parse(line) as Reply;
      if ("return" in message || "error" in message) this.#replies.shift()?.resolve(message);
    });
    socket.on("close", () => {
      for (const reply of this.#replies.splice(0)) reply.reject(new Error("QEMU closed its QMP"));
    });
  }

  /** `name` tells several QEMUs of one directory apart. */
  static async start(
    place: { readonly directory: string; readonly name: string },
    qemuArguments: readonly string[],
  ): Promise<LabQemu> {
    const path = join(place.directory, `${place.name}.qmp`);
    const child = spawn(
      LAB_QEMU_BINARY,
      [
        ...qemuArguments,
        "-nodefaults",
        "-display",
        "none",
        "-qmp",
        `unix:${path},server=on,wait=off`,
      ],
      { stdio: ["ignore", "ignore", "inherit"] },
    );
    try {
      const qemu = new LabQemu(child, await connectWhenThere(path));
      await qemu.execute("qmp_capabilities");
      return qemu;
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
  }

  async execute(command: string, commandArguments: object = {}): Promise<Reply> {
    const awaited = new Deferred<Reply>();
    this.#replies.push(awaited);
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: commandArguments })}\n`);
    const reply = await awaited.promise;
    if ("error" in reply) throw new Error(`${command}: ${JSON.stringify(reply["error"])}`);
    return reply["return"] as Reply;
  }

  async setCapabilities(...capabilities: readonly string[]): Promise<void> {
    await this.execute("migrate-set-capabilities", {
      capabilities: capabilities.map((capability) => ({ capability, state: true })),
    });
  }

  /** Waits until the migration, in or out, says one of these; fails if it says `failed` instead. */
  async waitForMigration(...wanted: readonly string[]): Promise<string> {
    return await eventually(`migration ${wanted.join(" or ")}`, async () => {
      const { status } = await this.execute("query-migrate");
      if (typeof status !== "string") return null;
      if (wanted.includes(status)) return status;
      if (status === "failed") throw new Error("the migration failed");
      return null;
    });
  }

  async status(): Promise<unknown> {
    return (await this.execute("query-status"))["status"];
  }

  /** Guest-physical memory into a file. */
  async saveMemory(
    path: string,
    range: { startBytes: number; lengthBytes: number },
  ): Promise<void> {
    await this.execute("pmemsave", {
      val: range.startBytes,
      size: range.lengthBytes,
      filename: path,
    });
  }

  async kill(): Promise<void> {
    this.#socket.destroy();
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    this.#process.kill("SIGKILL");
    await this.#exited;
  }
}

/** Asks again and again until the answer is not null, for a limited time. */
export async function eventually<Result>(
  what: string,
  ask: () => Result | null | Promise<Result | null>,
): Promise<Result> {
  const deadlineMs = performance.now() + WAIT_MS_MAX;
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    if (performance.now() > deadlineMs) throw new Error(`timed out waiting for ${what}`);
    await delay(POLL_MS);
  }
}

/** Connects to a unix socket whose listener may not be there yet. */
export async function connectWhenThere(path: string): Promise<Socket> {
  return await eventually(`a listener on ${path}`, async () => {
    const socket = createConnection({ path });
    return await new Promise<Socket | null>((resolve) => {
      socket.once("connect", () => {
        resolve(socket);
      });
      socket.once("error", () => {
        resolve(null);
      });
    });
  });
}
