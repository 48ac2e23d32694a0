import { WebSocket, type ClientOptions } from "ws";
import type { Clock } from "@vmferry/core";
import { ControlChannel, PeerError, tlsRefusal, type Channel, type PeerTls } from "@vmferry/agent";
import { limits, type ControlMessageOf } from "@vmferry/protocol";
import { BulkSocket, type OpenBulkConnection } from "./bulk-socket.ts";
import { PageSocket, type OpenPageLane } from "./page-socket.ts";

const HANDSHAKE_MS_MAX = 5000;

export interface PeerAddress {
  /** `ws://host:port` or `wss://host:port`, from the configuration, never from a request. */
  readonly url: string;
  readonly token: string | null;
  /** Null: plaintext. */
  readonly tls: PeerTls | null;
}

/** What a session dials with; `PeerDialer` is one. */
export interface Dialer {
  control(signal: AbortSignal): Promise<Channel>;
  bulk(hello: ControlMessageOf<"bulk-hello">, signal: AbortSignal): Promise<OpenBulkConnection>;
}

/** What a hand-over with post-copy dials beside. */
export interface PageDialer {
  pages(hello: ControlMessageOf<"pages-hello">, signal: AbortSignal): Promise<OpenPageLane>;
}

/** What a hand-over with lazy disks dials beside. */
export interface BlockDialer {
  blocks(hello: ControlMessageOf<"blocks-hello">, signal: AbortSignal): Promise<OpenPageLane>;
}

/** Opens the connections of a session. Rejects with `peer-unreachable` or `peer-unauthorized`. */
export class PeerDialer implements Dialer, PageDialer, BlockDialer {
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
    const connection = await this.#open(
      "/v1/peer/bulk",
      (socket) => new BulkSocket(socket, hello, this.#clock),
      signal,
    );
    return connection.answered(signal);
  }

  async pages(hello: ControlMessageOf<"pages-hello">, signal: AbortSignal): Promise<OpenPageLane> {
    const wrap = (socket: WebSocket): PageSocket => new PageSocket(socket, hello, this.#clock);
    return this.#open("/v1/peer/pages", wrap, signal);
  }

  async blocks(
    hello: ControlMessageOf<"blocks-hello">,
    signal: AbortSignal,
  ): Promise<OpenPageLane> {
    const wrap = (socket: WebSocket): PageSocket => new PageSocket(socket, hello, this.#clock);
    return this.#open("/v1/peer/blocks", wrap, signal);
  }

  /** `wrap` is called at once: what the dest sends right behind its answer finds a listener. */
  #open<T>(path: string, wrap: (socket: WebSocket) => T, signal: AbortSignal): Promise<T> {
    const { url, token, tls } = this.#peer;
    const invalidity = tls?.invalidity(this.#clock.date()) ?? null;
    if (invalidity !== null) {
      return Promise.reject(unreachable(url, `it would not accept this agent: ${invalidity}`));
    }
    const options: ClientOptions = {
      ...tls?.options,
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
        reject(unreachable(url, reasonOf(error, url), error));
      });
    });
  }
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

/** What went wrong, with what to do about it where that is known. */
function reasonOf(error: NodeJS.ErrnoException, url: string): string {
  const { hostname, protocol } = new URL(url);
  if (error.code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    return (
      `its certificate does not name ${hostname}: issue it with this name, or name the peer in ` +
      `VMFERRY_PEERS as the certificate does (${error.message})`
    );
  }
  const refusal = tlsRefusal(error.code);
  if (refusal !== null) return `${refusal} (${error.message})`;
  // What it answered with was no TLS, or an alert of one that agrees on no version.
  if (error.code === "EPROTO") {
    return "it does not speak TLS 1.3: set VMFERRY_TLS_DIR there";
  }
  if (error.code !== "ECONNRESET") return error.message;
  // TLS 1.3 tells a client that its certificate was refused after it believes to be connected.
  return protocol === "wss:"
    ? `it ended the connection; if its log says that this agent's certificate was refused, do as it says (${error.message})`
    : `it ended the connection; if it has VMFERRY_TLS_DIR, set it here too and name it wss:// (${error.message})`;
}

function unreachable(url: string, why: string, cause?: unknown): PeerError {
  return new PeerError(
    `no dest agent answers at ${url}: ${why}`,
    { code: "peer-unreachable", url },
    { cause },
  );
}
