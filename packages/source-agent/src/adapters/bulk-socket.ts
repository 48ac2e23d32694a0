/** A bulk connection at the source: says whose it is, and hears what the dest has of it. */
import { Heartbeat, PeerError } from "@vmferry/agent";
import { Deferred, messageOf, type Clock } from "@vmferry/core";
import {
  closeCodeOf,
  decodeControl,
  encodeControl,
  violation,
  type ControlMessageOf,
} from "@vmferry/protocol";
import type { WebSocket } from "ws";

/** One bulk WebSocket that the dest has admitted. */
export interface OpenBulkConnection {
  /** Frames of this index that the dest had when it answered: the next one has this number. */
  readonly receivedFrames: number;
  readonly bufferedBytes: number;
  /** Why it ended; never rejects. */
  readonly closed: Promise<Error>;
  /** Takes the frame as it is. Its buffer must not change while the connection is open and its data are buffered. */
  send(frame: Buffer): void;
  /** Calls back with how many frames of this index the dest has. */
  onReceived(callback: (frames: number) => void): void;
  close(reason?: unknown): void;
}

export class BulkSocket implements OpenBulkConnection {
  readonly closed: Promise<Error>;
  readonly #closed = new Deferred<Error>();
  readonly #answered = new Deferred();
  readonly #socket: WebSocket;
  #onReceived: (frames: number) => void = () => undefined;
  #receivedFrames = 0;

  /** Of a socket that is open. */
  constructor(socket: WebSocket, hello: ControlMessageOf<"bulk-hello">, clock: Clock) {
    socket.send(encodeControl(hello));
    this.#socket = socket;
    this.closed = this.#closed.promise;
    const heartbeat = new Heartbeat(socket, {
      clock,
      onSilent: () => {
        this.#end(lost("the peer has been silent for too long", null));
      },
    });
    socket.on("message", (data) => {
      heartbeat.heard();
      this.#take(data as Buffer);
    });
    socket.on("error", (error) => {
      this.#end(lost(error.message, null));
    });
    socket.on("close", (code) => {
      this.#end(lost(`closed by the peer (${code})`, code));
    });
  }

  get receivedFrames(): number {
    return this.#receivedFrames;
  }

  get bufferedBytes(): number {
    return this.#socket.bufferedAmount;
  }

  /** Resolves with it when the dest has said what it has; closes it when that does not come. */
  async answered(signal: AbortSignal): Promise<OpenBulkConnection> {
    const abort = (): void => {
      this.close();
    };
    signal.addEventListener("abort", abort, { once: true });
    try {
      const ended = this.closed.then((reason) => Promise.reject(reason));
      await Promise.race([this.#answered.promise, ended]);
      signal.throwIfAborted();
      return this;
    } catch (error) {
      this.close(error);
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  onReceived(callback: (frames: number) => void): void {
    this.#onReceived = callback;
  }

  send(frame: Buffer): void {
    this.#socket.send(frame, { binary: true }, () => undefined);
  }

  close(reason?: unknown): void {
    this.#socket.close(closeCodeOf(reason));
    this.#socket.terminate();
  }

  #take(data: Buffer): void {
    if (this.#closed.settled) return;
    try {
      const message = decodeControl(data);
      if (message.kind !== "received") throw violation("a message on a bulk connection");
      this.#receivedFrames = message.received;
      this.#answered.resolve();
      this.#onReceived(message.received);
    } catch (error) {
      this.#end(error instanceof Error ? error : new Error(messageOf(error)));
    }
  }

  #end(reason: Error): void {
    if (this.#closed.settled) return;
    this.#closed.resolve(reason);
    this.close(reason);
  }
}

function lost(text: string, closeCode: number | null): PeerError {
  return new PeerError(`a bulk connection ended: ${text}`, { code: "peer-lost", closeCode });
}
