/**
 * Listening sockets that outlive this process: a socket holder has a second descriptor of each, so
 * that whoever connects while no agent listens waits in the backlog for the next one instead of being
 * refused. A socket is known by device and inode of its file, which stays in use while anybody holds
 * the socket: what is at the path is what is held, or nothing is.
 *
 * Without a holder, or with one that does not answer, sockets are made as ever, and end with the
 * agent. One agent at a time works over the directory.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, lstatSync } from "node:fs";
import { mkdir, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { messageOf } from "@vmferry/core";
import type * as SocketCalls from "./socket-calls.ts";

export interface HeldSocketsOptions {
  /** Of the agent alone; made if absent. */
  readonly directory: string;
  /** For the log: sockets are not held, and why. */
  readonly onTrouble: (reason: string) => void;
  readonly answerMsMax?: number;
  /** For how long sockets are held without an agent. */
  readonly aloneMsMax?: number;
}

const HOLDER = fileURLToPath(new URL("socket-holder-main.ts", import.meta.url));
/** It comes with the first socket: whoever opens none can do without the native module. */
const systemCalls = (): Promise<typeof SocketCalls> => import("./socket-calls.ts");
/** It reads its own sources, and then does next to nothing. */
const NODE_LIMITS = ["--max-old-space-size=32", "--max-semi-space-size=1"];
const START_MS_MAX = 5000;
const ANSWER_MS_MAX = 5000;
/**
 * Whoever waits in a backlog looks for nothing else: should the next agent never ask for it, QEMU has
 * to be refused early enough to look again while it still has patience with its export (300 s).
 */
const ALONE_MS_MAX = 120_000;

export interface HeldSocket {
  /** Listens, and is for the caller to close, not before `held`. */
  readonly descriptor: number;
  /** Resolves when it outlives this process, or cannot. It never rejects. */
  readonly held: Promise<void>;
}

export class HeldSockets {
  readonly directory: string;
  readonly #options: HeldSocketsOptions;
  /** To the holder; it sees by its end that this process has ended. */
  #connection: number | null = null;
  /** One request at a time. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(options: HeldSocketsOptions) {
    this.directory = options.directory;
    this.#options = options;
  }

  static async open(options: HeldSocketsOptions): Promise<HeldSockets> {
    await mkdir(options.directory, { recursive: true, mode: 0o700 });
    return new HeldSockets(options);
  }

  /** Of a socket that is to be made: nobody has it. `name` is what tells those of one caller apart. */
  newPath(name: string): string {
    for (;;) {
      const path = join(this.directory, `${randomBytes(4).toString("hex")}-${name}`);
      if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return path;
    }
  }

  /**
   * Listens at the path. It is the socket of an earlier agent where there is one, with whoever has
   * connected meanwhile. Rejects where nobody can listen there.
   */
  async listen(path: string): Promise<HeldSocket> {
    return this.#inTurn(async () => {
      const earlier = await this.#request("take", path);
      if (earlier !== null && earlier.descriptor !== null) {
        return { descriptor: earlier.descriptor, held: Promise.resolve() };
      }
      // Lost on its way, for want of descriptors: who waits in its backlog has to be let go.
      if (earlier?.text === "ok") await this.#request("drop", path);
      if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true) await rm(path);
      const descriptor = (await systemCalls()).listenOn(path, "stream");
      const held = this.#inTurn(async () => {
        await this.#request("hold", path, descriptor);
      });
      return { descriptor, held };
    });
  }

  /** Nobody is to connect to it any more. It need not be there. */
  async giveUp(path: string): Promise<void> {
    await this.#inTurn(async () => {
      await this.#request("drop", path);
      await rm(path, { force: true });
    });
  }

  /** What an earlier agent has left here, and nobody is going to accept on. */
  async giveUpAllBut(served: readonly string[]): Promise<void> {
    for (const entry of await readdir(this.directory, { withFileTypes: true })) {
      const path = join(this.directory, entry.name);
      if (!entry.isSocket() || path === this.#controlPath || served.includes(path)) continue;
      await this.giveUp(path);
    }
  }

  /** Sockets that are held stay so. */
  close(): void {
    if (this.#connection !== null) closeSync(this.#connection);
    this.#connection = null;
  }

  async #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  /** Null where no holder has answered. */
  async #request(
    verb: "hold" | "take" | "drop",
    path: string,
    descriptor: number | null = null,
  ): Promise<SocketCalls.Message | null> {
    try {
      const file = lstatSync(path, { bigint: true, throwIfNoEntry: false });
      // What lies elsewhere may be emptied by the next agent, while somebody waits in a backlog.
      if (file?.isSocket() !== true || dirname(path) !== this.directory) return null;
      const request = { text: `${verb} ${file.dev}:${file.ino}`, descriptor };
      let answer = await this.#ask(request);
      if (answer === null && (await this.#connect())) answer = await this.#ask(request);
      // One that is not there has nothing.
      if (answer === null && verb === "hold") {
        await this.#start();
        if (await this.#connect()) answer = await this.#ask(request);
      }
      if (verb === "hold" && answer?.text !== "ok") {
        throw new Error(answer === null ? "it has ended already" : `it is ${answer.text}`);
      }
      return answer;
    } catch (error) {
      this.#options.onTrouble(`the socket holder: ${messageOf(error)}`);
      return null;
    }
  }

  /** Null where there is no holder, or none any more. One that does not answer is ended. */
  async #ask(request: SocketCalls.Message): Promise<SocketCalls.Message | null> {
    const connection = this.#connection;
    if (connection === null) return null;
    const { sendMessage, receiveMessage, whenReadable, peerOf } = await systemCalls();
    try {
      sendMessage(connection, request);
      if (!(await whenReadable(connection, this.#answerMsMax))) {
        // It would keep those who wait in its backlogs from the sockets that replace them.
        const { pid, uid } = peerOf(connection);
        if (pid > 0 && uid === process.geteuid!()) process.kill(pid, "SIGKILL");
        await whenReadable(connection, this.#answerMsMax);
        throw new Error(`process ${pid} did not answer and was ended`);
      }
      const answer = receiveMessage(connection);
      if (answer === null) this.close();
      return answer;
    } catch (error) {
      this.close();
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EPIPE" || code === "ECONNRESET") return null;
      throw error;
    }
  }

  /** False where nobody listens. */
  async #connect(): Promise<boolean> {
    const { connectTo } = await systemCalls();
    try {
      this.#connection = connectTo(this.#controlPath);
      return true;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT" || code === "ECONNREFUSED") return false;
      throw error;
    }
  }

  /** Like a guest's QEMU it belongs to nobody, and has nothing of this process. */
  async #start(): Promise<void> {
    await rm(this.#controlPath, { force: true });
    const { aloneMsMax = ALONE_MS_MAX } = this.#options;
    const itsArguments = [HOLDER, this.#controlPath, String(aloneMsMax)];
    const holder = spawn(process.execPath, [...NODE_LIMITS, ...itsArguments], {
      cwd: "/",
      detached: true,
      // From the second one on it needs no compiler, which takes more memory than all of the rest.
      env: { NODE_COMPILE_CACHE: join(this.directory, "compiled") },
      stdio: ["ignore", "pipe", "pipe"],
    });
    try {
      await startOf(holder);
      holder.unref();
    } catch (error) {
      holder.kill("SIGKILL");
      throw error;
    } finally {
      holder.stdout.destroy();
      holder.stderr.destroy();
    }
  }

  get #controlPath(): string {
    return join(this.directory, "holder");
  }

  get #answerMsMax(): number {
    return this.#options.answerMsMax ?? ANSWER_MS_MAX;
  }
}

async function startOf(holder: ChildProcess): Promise<void> {
  const late = new AbortController();
  const said = new Promise<string>((resolve, reject) => {
    let text = "";
    const onText = (part: Buffer): void => {
      text += part.toString("latin1");
      if (text.startsWith("ready\n")) resolve("ready");
    };
    holder.stdout!.on("data", onText);
    holder.stderr!.on("data", onText);
    holder.once("error", reject);
    holder.once("close", () => {
      reject(new Error(`it ended at once: ${text.trim().slice(-400)}`));
    });
  });
  const expired = sleep(START_MS_MAX, "late", { signal: late.signal }).catch(() => "late");
  const outcome = await Promise.race([said, expired]).finally(() => {
    late.abort();
  });
  if (outcome === "late") throw new Error(`it did not start within ${START_MS_MAX} ms`);
}
