/**
 * A page lane, or a connection of blocks, at the source: says what it is, then carries messages both
 * ways.
 */
import { Heartbeat, PeerError } from "@vmferry/agent";
import { Deferred, type Clock } from "@vmferry/core";
import { closeCodeOf, encodeControl, violation, type ControlMessageOf } from "@vmferry/protocol";
import type { WebSocket } from "ws";

/** What is kept of what the dest says before anybody listens; then its socket is not read. */
const EARLY_BYTES_MAX = 1024 * 1024;

export interface OpenPageLane {
  /** The shortest seen; 0 before the first. */
  readonly roundTripMs: number;
  readonly bufferedBytes: number;
  /** Why it ended; never rejects. */
  readonly closed: Promise<Error>;
  /** Takes the bytes as they are; `flushed` is called when their buffer may be used again. */
  send(bytes: Buffer, flushed: () => void): void;
  /** Every message from now on, beginning with those that came before. Called once. */
  listen(onMessage: (bytes: Buffer) => void): void;
  close(reason?: unknown): void;
}

export class PageSocket implements OpenPageLane {
  readonly closed: Promise<Error>;
  readonly #closed = new Deferred<Error>();
  readonly #socket: WebSocket;
  readonly #heartbeat: Heartbeat;
  readonly #early: Buffer[] = [];
  #earlyBytes = 0;
  #onMessage: ((bytes: Buffer) => void) | null = null;

  /** Of a socket that is open. */
  constructor(
    socket: WebSocket,
    hello: ControlMessageOf<"pages-hello" | "blocks-hello">,
    clock: Clock,
  ) {
    socket.send(encodeControl(hello));
    this.#socket = socket;
    this.closed = this.#closed.promise;
    this.#heartbeat = new Heartbeat(socket, {
      clock,
      onSilent: () => {
        this.#end(lost("the peer has been silent for too long", null));
      },
    });
    socket.on("message", (data, isBinary) => {
      this.#heartbeat.heard();
      if (isBinary) this.#take(data as Buffer);
      else this.#end(violation("text message on a connection of its own"));
    });
    socket.on("error", (error) => {
      this.#end(lost(error.message, null));
    });
    socket.on("close", (code) => {
      this.#end(lost(`closed by the peer (${code})`, code));
    });
  }

  get roundTripMs(): number {
    return this.#heartbeat.roundTripMs;
  }

  get bufferedBytes(): number {
    return this.#socket.bufferedAmount;
  }

  send(bytes: Buffer, flushed: () => void): void {
    this.#socket.send(bytes, { binary: true }, flushed);
  }

  listen(onMessage: (bytes: Buffer) => void): void {
    this.#onMessage = onMessage;
    for (const message of this.#early.splice(0)) onMessage(message);
    this.#socket.resume();
  }

  close(reason?: unknown): void {
    this.#socket.close(closeCodeOf(reason));
    this.#socket.terminate();
  }

  #take(data: Buffer): void {
    if (this.#closed.settled) return;
    if (this.#onMessage !== null) {
      this.#onMessage(data);
      return;
    }
    this.#early.push(data);
    this.#earlyBytes += data.length;
    if (this.#earlyBytes > EARLY_BYTES_MAX) this.#socket.pause();
  }

  #end(reason: Error): void {
    if (this.#closed.settled) return;
    this.#closed.resolve(reason);
    this.close(reason);
  }
}

function lost(text: string, closeCode: number | null): PeerError {
  return new PeerError(`a connection for what follows the guest ended: ${text}`, {
    code: "peer-lost",
    closeCode,
  });
}
