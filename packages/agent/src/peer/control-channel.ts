/**
 * The control connection between two agents: checked messages in order, and heartbeats that find
 * a half-open link. Control messages never wait behind bulk data, which has its own connections.
 *
 * Bounded: a peer that sends messages faster than the session takes them is a violation
 * (`QUEUE_MAX`), one that does not read is cut off (`BUFFERED_BYTES_MAX`).
 */
import { Deferred, failpoint, messageOf, type Clock } from "@vmferry/core";
import {
  closeCodeOf,
  decodeControl,
  encodeControl,
  violation,
  type ControlKind,
  type ControlMessage,
  type CloseCode,
  type ControlMessageOf,
} from "@vmferry/protocol";
import type { RawData, WebSocket } from "ws";
import { Heartbeat } from "./heartbeat.ts";
import { PeerError } from "./peer-error.ts";

const QUEUE_MAX = 1024;
const BUFFERED_BYTES_MAX = 4 * 1024 * 1024;

/** What a session needs of it. */
export type Channel = Pick<
  ControlChannel,
  "closed" | "roundTripMs" | "listen" | "next" | "send" | "close"
>;

export class ControlChannel {
  /** Why the channel ended; never rejects. */
  readonly closed: Promise<Error>;
  readonly #closed = new Deferred<Error>();
  readonly #socket: WebSocket;
  readonly #clock: Clock;
  readonly #heartbeat: Heartbeat;
  readonly #early: ControlMessage[] = [];
  #listener: ((message: ControlMessage) => void) | null = null;
  #arrival = new Deferred();

  constructor(socket: WebSocket, clock: Clock) {
    this.#socket = socket;
    this.#clock = clock;
    this.closed = this.#closed.promise;
    socket.on("message", (data, isBinary) => {
      this.#received(data, isBinary);
    });
    socket.on("error", (error) => {
      this.#end(lost(`the link to the peer failed: ${error.message}`, null, error));
    });
    socket.on("close", (code) => {
      this.#end(lost(`the peer closed the connection (${code})`, code));
    });
    this.#heartbeat = new Heartbeat(socket, {
      clock,
      onSilent: () => {
        this.#end(lost("the peer has been silent for too long", null));
      },
    });
  }

  /** The shortest round trip seen; 0 before the first. */
  get roundTripMs(): number {
    return this.#heartbeat.roundTripMs;
  }

  /** From now on every message goes to `listener`, beginning with those that came before. */
  listen(listener: (message: ControlMessage) => void): void {
    this.#listener = listener;
    for (const message of this.#early.splice(0)) listener(message);
  }

  /** The next message, which has to be one of `kinds`; rejects when the channel ends first. */
  async next<K extends ControlKind>(...kinds: readonly K[]): Promise<ControlMessageOf<K>> {
    while (this.#early.length === 0) {
      if (this.#closed.settled) throw await this.closed;
      this.#arrival = new Deferred();
      await Promise.race([this.#arrival.promise, this.closed]);
    }
    const message = this.#early.shift()!;
    if ((kinds as readonly string[]).includes(message.kind)) return message as ControlMessageOf<K>;
    throw violation(`${message.kind} where ${kinds.join(" or ")} was due`);
  }

  /** Throws the reason when the channel has ended. */
  send(message: ControlMessage): void {
    if (this.#socket.readyState !== this.#socket.OPEN) {
      throw lost("the link to the peer is gone", null);
    }
    if (this.#socket.bufferedAmount > BUFFERED_BYTES_MAX) {
      const error = lost("the peer does not read its control messages", null);
      this.#end(error);
      throw error;
    }
    failpoint(`send.${message.kind}.before`);
    this.#socket.send(encodeControl(message));
    failpoint(`send.${message.kind}.after`);
  }

  close(code: CloseCode): void {
    this.#heartbeat.stop();
    this.#socket.close(code);
    // A peer that does not answer the close is not waited for.
    this.#clock.after(1000, () => {
      this.#socket.terminate();
    });
  }

  #received(data: RawData, isBinary: boolean): void {
    // What came in one packet with the message that broke the protocol is not taken any more.
    if (this.#closed.settled) return;
    this.#heartbeat.heard();
    try {
      if (!isBinary) throw violation("text message");
      const message = decodeControl(data as Buffer);
      if (this.#listener !== null) this.#listener(message);
      else if (this.#early.push(message) > QUEUE_MAX) throw violation("too many messages");
      else this.#arrival.resolve();
    } catch (error) {
      this.#end(error instanceof Error ? error : new Error(messageOf(error)));
    }
  }

  #end(reason: Error): void {
    if (this.#closed.settled) return;
    this.#closed.resolve(reason);
    this.#heartbeat.stop();
    // A close code is a word of farewell; whose link was lost may come back over another.
    const isOpen = this.#socket.readyState === this.#socket.OPEN;
    if (isOpen && !(reason instanceof PeerError)) this.#socket.close(closeCodeOf(reason));
    this.#socket.terminate();
  }
}

function lost(text: string, closeCode: number | null, cause?: unknown): PeerError {
  return new PeerError(text, { code: "peer-lost", closeCode }, { cause });
}
