/** The dest's QEMU while it loads a migration: its socket, its return path, its verdict. */
import { rm } from "node:fs/promises";
import { createConnection, type Socket } from "node:net";
import { AgentError, codeOf, Deferred, messageOf, type Clock } from "@vmferry/core";
import {
  migrationStatusOf,
  PACKAGE_PING,
  ReturnPathDecoder,
  type MigrationCapability,
  type MigrationStatus,
  type QmpClient,
  type RamBlock,
  type ReturnPathMessage,
} from "@vmferry/qemu";
import type { ReqPages } from "../postcopy/page-requests.ts";
import { POSTCOPY_OUTSTANDING_BYTES_MAX, QemuSink, type StreamSink } from "../ram/qemu-sink.ts";
import { openUrgentChannel } from "./urgent-channel.ts";

const POLL_MS = 1;
const LOADED_MS_MAX = 10_000;
/** Recovery of a post-copy is the only user of bitmaps, and opens a connection of its own. */
const BITMAP_BYTES_MAX = 0;

export class IncomingQemuError extends AgentError<{
  readonly code: "dest-load-failed" | "dest-qemu-failed" | "dest-qemu-died";
}> {}

export interface IncomingQemuOptions {
  readonly qmp: QmpClient;
  readonly clock: Clock;
  readonly socketPath: string;
  /** Some of memory may come after the hand-over. */
  readonly postCopy: boolean;
  /** The next agent could take it up, whatever QEMU waits for. */
  readonly canRecover: boolean;
  /** None before they were announced. */
  readonly blocks: () => readonly RamBlock[];
  /** What the source's QEMU is to hear: not SHUT, and nothing that is about post-copy. */
  readonly onReturnPath: (message: ReturnPathMessage) => void;
}

export class IncomingQemu {
  readonly sink: QemuSink;
  /** QEMU answered SHUT 0; rejects with `dest-load-failed`. */
  readonly shut: Promise<void>;
  /** Why this QEMU cannot take memory after the hand-over; empty where it can, or need not. */
  readonly postCopyRefusal: string;
  /** It has a channel of its own for pages that it asks for. */
  readonly hasUrgentChannel: boolean;
  /** Pages that QEMU waits for. */
  onRequest: (message: ReqPages) => void = () => undefined;
  readonly #shut = new Deferred();
  /** PONG of the package. */
  readonly #packageLoaded = new Deferred();
  readonly #qmp: QmpClient;
  readonly #clock: Clock;
  readonly #socket: Socket;
  readonly #path: string;

  private constructor(socket: Socket, options: IncomingQemuOptions, postCopy: PostCopyOfQemu) {
    this.postCopyRefusal = postCopy.refusal;
    this.hasUrgentChannel = postCopy.hasUrgentChannel;
    this.#qmp = options.qmp;
    this.#clock = options.clock;
    this.#path = options.socketPath;
    this.#socket = socket;
    this.sink = new QemuSink(socket);
    this.shut = this.#shut.promise;
    const decoder = new ReturnPathDecoder(
      (message) => {
        if (message.type === "req-pages") this.onRequest(message);
        else if (message.type === "pong" && message.value === PACKAGE_PING) {
          this.#packageLoaded.resolve();
        } else if (message.type !== "shut") options.onReturnPath(message);
        else if (message.value === 0) this.#shut.resolve();
        else void this.#failed(`its return path ended with ${message.value}`);
      },
      { bitmapBytesMax: BITMAP_BYTES_MAX, blocks: options.blocks },
    );
    socket.on("data", (chunk) => {
      try {
        decoder.push(chunk);
      } catch (error) {
        this.#shut.reject(error);
      }
    });
    socket.on("error", () => undefined);
    socket.on("close", () => void this.#failed("it closed the migration stream"));
    options.qmp.onEvent((event) => {
      if (migrationStatusOf(event) === "failed") void this.#failed("it gave the load up");
    });
  }

  /** Tells QEMU to listen, and connects: nobody else gets a word in. */
  static async open(options: IncomingQemuOptions): Promise<IncomingQemu> {
    const { qmp, socketPath } = options;
    await rm(socketPath, { force: true });
    // From 9.1 on QEMU can stay after a failed load, and then it says why.
    const stays = isFrom91(qmp);
    // At once: QEMU takes them in order, and is slow to answer while it starts.
    const capabilities = qmp.execute("migrate-set-capabilities", {
      capabilities: [
        { capability: "return-path", state: true },
        { capability: "events", state: true },
        // The images are locked and read by `cont`, not by the end of the load.
        { capability: "late-block-activate", state: true },
      ],
    });
    const [postCopy] = await Promise.all([
      options.postCopy ? preparePostCopy(options) : NOT_WANTED,
      capabilities,
    ]);
    const uri = `unix:${socketPath}`;
    await qmp.execute("migrate-incoming", stays ? { uri, "exit-on-error": false } : { uri });
    const socket = createConnection(socketPath);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return new IncomingQemu(socket, options, postCopy);
  }

  /** After SHUT: QEMU calls the migration completed and stands still. */
  async loaded(): Promise<void> {
    await this.shut;
    await this.#stands("completed");
  }

  /** Once QEMU has read something of its stream. Null where it has no such channel. */
  openUrgentChannel(): StreamSink | null {
    return this.hasUrgentChannel ? openUrgentChannel(this.#path, this.#socket).sink : null;
  }

  /** The package is in: QEMU could run, asks for pages that it lacks, and stands still. */
  async packageLoaded(): Promise<void> {
    await Promise.race([this.#packageLoaded.promise, this.shut]);
    await Promise.race([this.#stands("postcopy-active"), this.shut]);
    this.sink.outstandingBytesMax = POSTCOPY_OUTSTANDING_BYTES_MAX;
  }

  async #stands(wanted: MigrationStatus): Promise<void> {
    const deadlineMs = this.#clock.nowMs() + LOADED_MS_MAX;
    let seen = "";
    while (this.#clock.nowMs() < deadlineMs) {
      const { status } = await this.#qmp.execute("query-migrate");
      const state = await this.#qmp.execute("query-status");
      seen = `migration ${status}, guest ${state.status}`;
      if (state.running) throw failed("QEMU runs although nobody started it", "dest-qemu-failed");
      if (status === wanted && state.status === "paused") return;
      await this.#wait();
    }
    throw failed(`QEMU did not say that it has loaded the guest: ${seen}`, "dest-load-failed");
  }

  async close(): Promise<void> {
    this.#socket.destroy();
    await rm(this.#path, { force: true });
  }

  async #failed(how: string): Promise<void> {
    if (this.#shut.settled) return;
    if (this.#packageLoaded.settled) {
      // The guest may run already, and wait for a page: QEMU is not asked.
      this.#shut.reject(failed(`QEMU takes no more pages: ${how}`, "dest-qemu-failed"));
      return;
    }
    try {
      const { errorDescription } = await this.#qmp.execute("query-migrate");
      const text = `QEMU did not load the guest: ${errorDescription ?? how}`;
      this.#shut.reject(failed(text, "dest-load-failed"));
    } catch {
      // Its monitor is gone as well: it did not fail, it died.
      this.#shut.reject(failed(`the dest's QEMU has died: ${how}`, "dest-qemu-died"));
    }
  }

  #wait(): Promise<void> {
    return new Promise((resolve) => {
      this.#clock.after(POLL_MS, resolve);
    });
  }
}

interface PostCopyOfQemu {
  readonly refusal: string;
  readonly hasUrgentChannel: boolean;
}

const NOT_WANTED: PostCopyOfQemu = { refusal: "", hasUrgentChannel: false };

/** Switches post-copy on, where QEMU and its host can do it. */
async function preparePostCopy({ qmp, canRecover }: IncomingQemuOptions): Promise<PostCopyOfQemu> {
  const text = "the dest's QEMU takes no commands while it waits for a page";
  if (!canRecover) return { refusal: text, hasUrgentChannel: false };
  // Before 8.0 QEMU did not wait for what comes by that channel, and for a while then not for the
  // channel itself, when it loads devices.
  const [refusal, refusalOfChannel] = await Promise.all([
    refuse(qmp, "postcopy-ram"),
    isFrom91(qmp) ? refuse(qmp, "postcopy-preempt") : "this QEMU has none",
  ]);
  return { refusal, hasUrgentChannel: refusal === "" && refusalOfChannel === "" };
}

function isFrom91({ version: { major, minor } }: Pick<QmpClient, "version">): boolean {
  return major > 9 || (major === 9 && minor >= 1);
}

/** Why QEMU does not switch it on; empty where it does. */
async function refuse(qmp: QmpClient, capability: MigrationCapability): Promise<string> {
  try {
    const capabilities = [{ capability, state: true }];
    await qmp.execute("migrate-set-capabilities", { capabilities });
    return "";
  } catch (error) {
    if (codeOf(error) !== "qmp-command-failed") throw error;
    return messageOf(error);
  }
}

function failed(text: string, code: IncomingQemuError["code"]): IncomingQemuError {
  return new IncomingQemuError(text, { code });
}
