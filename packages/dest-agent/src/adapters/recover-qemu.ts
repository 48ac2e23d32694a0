/**
 * A QEMU that was left in the middle of post-copy, because the agent that fed it has ended. It is
 * made to listen once more, out of band, for its main loop may wait for a page; then this agent
 * plays the source that takes the post-copy up:
 *
 *   RECV_BITMAP per block ▶ ◀ which pages it has      its urgent channel      POSTCOPY_RESUME ▶ ◀ RESUME_ACK
 */
import { rm } from "node:fs/promises";
import { createConnection, type Socket } from "node:net";
import { PageSet } from "@vmferry/agent";
import { AgentError, codeOf, Deferred, messageOf, sleep, type Clock } from "@vmferry/core";
import {
  encodeBitmapRequest,
  encodePostcopyResume,
  receivedBitmapBytes,
  ReturnPathDecoder,
  type OobSession,
  type QmpClient,
  type RamSection,
  type ReturnPathMessage,
} from "@vmferry/qemu";
import { openFetching, type Fetching } from "../postcopy/fetching.ts";
import { POSTCOPY_OUTSTANDING_BYTES_MAX, QemuSink } from "../ram/qemu-sink.ts";
import { openUrgentChannel } from "./urgent-channel.ts";

const POLL_MS = 50;
/** QEMU notices within moments that the agent before is gone: what takes longer a person is told. */
const LISTEN_MS_MAX = 10_000;
const QUERY_MS_MAX = 1000;
/** In one turn of its loop QEMU may look at its monitor before it looks at its listener. */
const ACCEPT_TURNS = 2;
const ANSWER_MS_MAX = 30_000;

export class RecoverQemuError extends AgentError<{ readonly code: "post-copy-not-recovered" }> {}

export interface RecoverQemuOptions {
  /** The guest's standby monitor: QEMU's main loop may wait for a page. */
  readonly oob: OobSession;
  /** Null as long as there is none, for want of an answer. */
  readonly qmp: Pick<QmpClient, "execute"> | null;
  readonly clock: Clock;
  /** Where QEMU is to listen: of this attempt alone. */
  readonly socketPath: string;
  readonly section: RamSection;
  /** It takes pages that it has asked for by a second connection, and does not go on without. */
  readonly hasUrgentChannel: boolean;
}

/**
 * Null when QEMU has everything and has said so to the agent before. Rejects with
 * `post-copy-not-recovered`; QEMU waits on then, and another attempt may be made.
 */
export async function recoverQemu(options: RecoverQemuOptions): Promise<Fetching | null> {
  const { socketPath, section, hasUrgentChannel, clock } = options;
  await rm(socketPath, { force: true });
  if (!(await listens(options))) return null;
  const conversation = await Conversation.open(options);
  try {
    const missing = await conversation.missing();
    const urgentSink = hasUrgentChannel ? await conversation.openUrgentChannel() : null;
    const fetching: Fetching = openFetching({
      ...{ section, missing, clock, urgentSink },
      hashes: null,
      sink: conversation.sink,
      shut: conversation.shut,
      close: () => conversation.close(),
    });
    conversation.onMessage = (message) => {
      if (message.type === "req-pages") fetching.requests.asked(message);
    };
    await conversation.resume();
    return fetching;
  } catch (error) {
    await conversation.close();
    throw error;
  }
}

/** False when there is nothing to go on with: the load has come to its end. */
async function listens({ oob, qmp, clock, socketPath }: RecoverQemuOptions): Promise<boolean> {
  const deadlineMs = clock.nowMs() + LISTEN_MS_MAX;
  for (;;) {
    try {
      await oob.executeOob("migrate-recover", { uri: `unix:${socketPath}` });
      return true;
    } catch (error) {
      if (codeOf(error) !== "qmp-command-failed") throw notRecovered(messageOf(error), error);
      const seen = await statusOf(qmp);
      if (seen === "completed") return false;
      if (seen === "failed" || seen === "none" || clock.nowMs() > deadlineMs) {
        throw notRecovered(`${messageOf(error)} (its migration is ${seen})`, error);
      }
    }
    // It has not noticed yet that the agent before is gone.
    await sleep(clock, POLL_MS);
  }
}

/** Asked in band, which a QEMU that waits for a page does not answer: then it is not at its end. */
async function statusOf(qmp: RecoverQemuOptions["qmp"]): Promise<string> {
  if (qmp === null) return "not told";
  const options = { timeoutMs: QUERY_MS_MAX };
  return await qmp.execute("query-migrate", undefined, options).then(
    ({ status }) => status,
    () => "not told",
  );
}

/** With a QEMU that listens, over one socket. */
class Conversation {
  readonly sink: QemuSink;
  readonly shut: Promise<void>;
  onMessage: (message: ReturnPathMessage) => void = () => undefined;
  readonly #options: RecoverQemuOptions;
  readonly #socket: Socket;
  readonly #shut = new Deferred();

  private constructor(socket: Socket, options: RecoverQemuOptions) {
    this.#options = options;
    this.#socket = socket;
    this.sink = new QemuSink(socket);
    this.sink.outstandingBytesMax = POSTCOPY_OUTSTANDING_BYTES_MAX;
    this.shut = this.#shut.promise;
    const { blocks } = options.section;
    const decoder = new ReturnPathDecoder(
      (message) => {
        if (message.type !== "shut") this.onMessage(message);
        else if (message.value === 0) this.#shut.resolve();
        else this.#shut.reject(notRecovered(`its return path ended with ${message.value}`));
      },
      { bitmapBytesMax: Math.max(...blocks.map(receivedBitmapBytes)), blocks: () => blocks },
    );
    socket.on("data", (chunk) => {
      try {
        decoder.push(chunk);
      } catch (error) {
        this.#shut.reject(error);
        socket.destroy();
      }
    });
    socket.on("close", () => {
      this.#shut.reject(notRecovered("QEMU has closed the connection"));
    });
    socket.on("error", () => undefined); // `close` follows
  }

  static async open(options: RecoverQemuOptions): Promise<Conversation> {
    const socket = createConnection(options.socketPath);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", (error) => {
        reject(notRecovered(messageOf(error), error));
      });
    });
    return new Conversation(socket, options);
  }

  /** What QEMU does not have. */
  async missing(): Promise<PageSet> {
    const { blocks } = this.#options.section;
    const missing = new PageSet(blocks);
    for (const [index, { name }] of blocks.entries()) {
      const answer = await this.#ask(
        encodeBitmapRequest(name),
        (message) => message.type === "recv-bitmap" && message.block === name,
      );
      const { bitmap } = answer as Extract<ReturnPathMessage, { type: "recv-bitmap" }>;
      const pages = missing.blockPages[index]!;
      for (let page = 0; page < pages; page++) {
        if (((bitmap[page >>> 3]! >>> (page & 7)) & 1) === 0) missing.add(index, page);
      }
    }
    return missing;
  }

  /**
   * QEMU waits for this connection when it goes on, for ever and deaf to everything else: so it has to
   * have taken it before. It does that where it answers commands out of band.
   */
  async openUrgentChannel(): Promise<QemuSink> {
    const { oob, socketPath } = this.#options;
    try {
      const { sink, connected } = openUrgentChannel(socketPath, this.#socket);
      await connected;
      for (let turn = 0; turn < ACCEPT_TURNS; turn++) await oob.executeOob("query-yank", undefined);
      return sink;
    } catch (error) {
      throw notRecovered(messageOf(error), error);
    }
  }

  /** Post-copy goes on: from here on QEMU asks for what it waits for. */
  async resume(): Promise<void> {
    const said = await this.#ask(encodePostcopyResume(), ({ type }) => type === "resume-ack");
    if (said.type === "resume-ack" && said.value === 1) return;
    throw notRecovered("it does not go on");
  }

  async close(): Promise<void> {
    this.#socket.destroy();
    await rm(this.#options.socketPath, { force: true });
  }

  async #ask(
    question: Buffer,
    isAnswer: (message: ReturnPathMessage) => boolean,
  ): Promise<ReturnPathMessage> {
    const answered = new Deferred<ReturnPathMessage>();
    const others = this.onMessage;
    this.onMessage = (message) => {
      if (isAnswer(message)) answered.resolve(message);
      else others(message);
    };
    const cancelTimer = this.#options.clock.after(ANSWER_MS_MAX, () => {
      answered.reject(notRecovered(`no answer for ${ANSWER_MS_MAX} ms`));
    });
    this.shut.catch((error: unknown) => {
      answered.reject(error);
    });
    try {
      await this.sink.write(question, () => undefined);
      return await answered.promise;
    } finally {
      cancelTimer();
      this.onMessage = others;
    }
  }
}

function notRecovered(reason: string, cause?: unknown): RecoverQemuError {
  const text = `the guest's QEMU does not take up its memory's arrival: ${reason}`;
  return new RecoverQemuError(text, { code: "post-copy-not-recovered" }, { cause });
}
