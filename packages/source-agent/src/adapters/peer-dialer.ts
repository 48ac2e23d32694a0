import { WebSocket, type ClientOptions } from "ws";
import { Deferred, messageOf, type Clock } from "@vmferry/core";
import { ControlChannel, Heartbeat, PeerError, type Channel } from "@vmferry/agent";
import {
  closeCodeOf,
  decodeControl,
  encodeControl,
  limits,
  violation,
  type ControlMessageOf,
} from "@vmferry/protocol";

const HANDSHAKE_MS_MAX = 5000;

export interface PeerAddress {
  /** `ws://host:port` or `wss://host:port`, from the configuration, never from a request. */
  readonly url: string;
  readonly token: string | null;
}

/** One bulk WebSocket. */
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

/** What a session dials with; `PeerDialer` is one. */
export interface Dialer {
  control(signal: AbortSignal): Promise<Channel>;
  bulk(hello: ControlMessageOf<"bulk-hello">, signal: AbortSignal): Promise<OpenBulkConnection>;
}

/** Opens the connections of a session. Rejects with `peer-unreachable` or `peer-unauthorized`. */
export class PeerDialer implements Dialer {
  readonly #peer: PeerAddress;
  readonly #clock: Clock;

  constructor(peer: PeerAddress, clock: Clock) {
    this.#peer = peer;
    this.#clock = clock;
  }

  async control(signal: AbortSignal): Promise<ControlChannel> {
    return this.#open(
      "/v1/peer/control",
      (socket) => new ControlChannel(socket, this.#clock),
      signal,
    );
  }

  async bulk(
    hello: ControlMessageOf<"bulk-hello">,
    signal: AbortSignal,
  ): Promise<OpenBulkConnection> {
    const open = (socket: WebSocket): BulkSocket => {
      socket.send(encodeControl(hello));
      return new BulkSocket(socket, this.#clock);
    };
    const connection = await this.#open("/v1/peer/bulk", open, signal);
    const abort = (): void => {
      connection.close();
    };
    signal.addEventListener("abort", abort, { once: true });
    try {
      await connection.answered();
      signal.throwIfAborted();
      return connection;
    } catch (error) {
      connection.close(error);
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /** `wrap` is called at once: what the dest sends right behind its answer finds a listener. */
  #open<T>(path: string, wrap: (socket: WebSocket) => T, signal: AbortSignal): Promise<T> {
    const { url, token } = this.#peer;
    const options: ClientOptions = {
      perMessageDeflate: false,
      maxPayload: limits.CONTROL_BYTES_MAX,
      maxFragments: 1,
      handshakeTimeout: HANDSHAKE_MS_MAX,
      followRedirects: false,
      // The all-zero mask spares both ends a pass over every byte: docs/decisions/0004.
      generateMask: (mask) => mask.fill(0),
      headers: token === null ? {} : { authorization: `Bearer ${token}` },
    };
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const socket = new WebSocket(new URL(path, url), options);
      const abort = (): void => {
        socket.terminate();
        reject(signal.reason as Error);
      };
      signal.addEventListener("abort", abort, { once: true });
      const settled = (): void => {
        signal.removeEventListener("abort", abort);
      };
      socket.once("open", () => {
        settled();
        socket.removeAllListeners("error");
        resolve(wrap(socket));
      });
      socket.once("unexpected-response", (_request, response) => {
        settled();
        socket.terminate();
        const status = response.statusCode ?? 0;
        reject(refusedBy(url, status));
      });
      socket.on("error", (error) => {
        settled();
        reject(unreachable(url, error.message, error));
      });
    });
  }
}

class BulkSocket implements OpenBulkConnection {
  readonly closed: Promise<Error>;
  readonly #closed = new Deferred<Error>();
  readonly #answered = new Deferred();
  readonly #socket: WebSocket;
  #onReceived: (frames: number) => void = () => undefined;
  #receivedFrames = 0;

  constructor(socket: WebSocket, clock: Clock) {
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

  /** Resolves when the dest has said what it has; rejects when the connection ends first. */
  async answered(): Promise<void> {
    await Promise.race([this.#answered.promise, this.closed.then((reason) => Promise.reject(reason))]);
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

function refusedBy(url: string, status: number): PeerError {
  if (status === 401 || status === 403) {
    return new PeerError(
      `${url} does not accept this agent: set VMFERRY_PEER_TOKEN to the same secret on both`,
      { code: "peer-unauthorized", url },
    );
  }
  return unreachable(url, `it answered with HTTP status ${status}`);
}

function unreachable(url: string, why: string, cause?: unknown): PeerError {
  return new PeerError(
    `no dest agent answers at ${url}: ${why}`,
    { code: "peer-unreachable", url },
    { cause },
  );
}
