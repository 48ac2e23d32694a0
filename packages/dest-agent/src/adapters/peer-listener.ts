/**
 * The endpoint that source agents dial: `/v1/peer/control`, `/v1/peer/bulk`, `/v1/peer/pages`
 * and `/v1/peer/blocks`. Certificates, where there is TLS, and the token are checked before the
 * upgrade, so nothing of a stranger reaches a session, let alone QEMU.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage, Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { WebSocketServer, type WebSocket } from "ws";
import type { Clock } from "@vmferry/core";
import { ControlChannel, type PeerTls } from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import { createPeerServer, type TlsStranger } from "./peer-server.ts";

const CONNECTIONS_MAX = 256;
/** Whoever is refused again and again fills no log. */
const STRANGERS_MS_MIN = 10_000;

export interface PeerListenerOptions {
  readonly host: string;
  readonly port: number;
  readonly token: string | null;
  /** Null: plaintext. */
  readonly tls: PeerTls | null;
  readonly clock: Clock;
  readonly onControl: (channel: ControlChannel) => void;
  readonly onBulk: (socket: WebSocket) => void;
  readonly onPages: (socket: WebSocket) => void;
  readonly onBlocks: (socket: WebSocket) => void;
  /** TLS has let somebody not in; called for one of them every ten seconds at most. */
  readonly onStranger: (stranger: TlsStranger) => void;
}

export class PeerListener {
  readonly #options: PeerListenerOptions;
  readonly #server: Server;
  readonly #control = upgrader(limits.CONTROL_BYTES_MAX);
  readonly #bulk = upgrader(limits.FRAME_BYTES_MAX);
  readonly #blocks = upgrader(limits.BLOCK_MESSAGE_BYTES_MAX);
  /** Those that were let in. */
  readonly #sockets = new Set<Duplex>();
  /** All there are, also those in the middle of a TLS handshake, which the server does not close. */
  readonly #connections = new Set<Socket>();
  #strangerMs = -Infinity;

  private constructor(options: PeerListenerOptions) {
    this.#options = options;
    this.#server = createPeerServer(
      options.tls,
      (_request, response) => {
        response.writeHead(426, { "content-type": "text/plain" });
        response.end("This port speaks vmferry's agent protocol over WebSocket only.\n");
      },
      (stranger) => {
        this.#tellOf(stranger);
      },
    );
    this.#server.on("connection", (connection: Socket) => {
      this.#connections.add(connection);
      connection.once("close", () => this.#connections.delete(connection));
    });
    this.#server.on("upgrade", (request, socket, head) => {
      this.#upgrade(request, socket, head);
    });
  }

  static async open(options: PeerListenerOptions): Promise<PeerListener> {
    const listener = new PeerListener(options);
    await new Promise<void>((resolve, reject) => {
      listener.#server.once("error", reject);
      listener.#server.listen(options.port, options.host, resolve);
    });
    return listener;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
      // Also those that have not asked for anything yet.
      for (const connection of this.#connections) connection.destroy();
    });
  }

  #tellOf(stranger: TlsStranger): void {
    const nowMs = this.#options.clock.nowMs();
    if (nowMs - this.#strangerMs < STRANGERS_MS_MIN) return;
    this.#strangerMs = nowMs;
    this.#options.onStranger(stranger);
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on("error", () => socket.destroy());
    // Not through URL, which throws for targets such as "//" that any stranger may send.
    const path = request.url?.split("?", 1)[0];
    const refusal = this.#refusal(request);
    if (refusal !== null) {
      refuse(socket, refusal);
      return;
    }
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    if (path === "/v1/peer/control") {
      this.#control.handleUpgrade(request, socket, head, (opened) => {
        this.#options.onControl(new ControlChannel(opened, this.#options.clock));
      });
    } else if (path === "/v1/peer/bulk") {
      this.#bulk.handleUpgrade(request, socket, head, (opened) => {
        this.#options.onBulk(opened);
      });
    } else if (path === "/v1/peer/pages") {
      this.#bulk.handleUpgrade(request, socket, head, (opened) => {
        this.#options.onPages(opened);
      });
    } else if (path === "/v1/peer/blocks") {
      this.#blocks.handleUpgrade(request, socket, head, (opened) => {
        this.#options.onBlocks(opened);
      });
    } else refuse(socket, "404 Not Found");
  }

  #refusal(request: IncomingMessage): string | null {
    if (!this.#authorized(request)) return "401 Unauthorized";
    return this.#sockets.size >= CONNECTIONS_MAX ? "503 Service Unavailable" : null;
  }

  #authorized(request: IncomingMessage): boolean {
    const { token } = this.#options;
    if (token === null) return true;
    const given = request.headers.authorization ?? "";
    return timingSafeEqual(sha256(given), sha256(`Bearer ${token}`));
  }
}

function upgrader(payloadBytesMax: number): WebSocketServer {
  return new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: payloadBytesMax,
    maxFragments: 1,
    clientTracking: false,
  });
}

function refuse(socket: Duplex, status: string): void {
  // Whoever was refused does not get to keep the connection by keeping its own end open.
  socket.once("finish", () => socket.destroy());
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
