/** For tests: a dest agent on loopback that answers what a test tells it to. */
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { WebSocketServer, type WebSocket } from "ws";
import { decodeControl, encodeControl, type ControlMessage } from "@vmferry/protocol";

/** One connection, as the dest sees it. */
export class ScriptedConnection {
  readonly path: string;
  readonly authorization: string | undefined;
  readonly socket: WebSocket;
  readonly received: Buffer[] = [];
  closeCode: number | null = null;
  #changed: (() => void)[] = [];

  constructor(socket: WebSocket, request: IncomingMessage) {
    this.socket = socket;
    this.path = request.url ?? "";
    this.authorization = request.headers.authorization;
    socket.on("message", (data) => {
      this.received.push(data as Buffer);
      this.#wake();
    });
    socket.on("close", (code) => {
      this.closeCode = code;
      this.#wake();
    });
    socket.on("error", () => undefined);
  }

  send(message: ControlMessage): void {
    this.socket.send(encodeControl(message));
  }

  /** The next message that was not taken yet. */
  async next(): Promise<ControlMessage> {
    await this.#until(() => this.received.length > 0);
    return decodeControl(this.received.shift()!);
  }

  async nextBytes(): Promise<Buffer> {
    await this.#until(() => this.received.length > 0);
    return this.received.shift()!;
  }

  /** The code that the connection ended with. */
  async closed(): Promise<number> {
    await this.#until(() => this.closeCode !== null);
    return this.closeCode!;
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => {
        this.#changed.push(resolve);
      });
    }
  }

  #wake(): void {
    for (const resolve of this.#changed.splice(0)) resolve();
  }
}

export class ScriptedDest {
  readonly connections: ScriptedConnection[] = [];
  readonly #server: Server;
  readonly #upgrades = new WebSocketServer({ noServer: true });

  private constructor(onConnection: (connection: ScriptedConnection) => void) {
    this.#server = createServer((_request, response) => {
      response.writeHead(426).end();
    });
    this.#server.on("upgrade", (request, socket, head) => {
      this.#upgrades.handleUpgrade(request, socket, head, (opened) => {
        const connection = new ScriptedConnection(opened, request);
        this.connections.push(connection);
        onConnection(connection);
      });
    });
  }

  static async open(onConnection: (connection: ScriptedConnection) => void): Promise<ScriptedDest> {
    const dest = new ScriptedDest(onConnection);
    await new Promise<void>((resolve) => dest.#server.listen(0, "127.0.0.1", resolve));
    return dest;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    for (const { socket } of this.connections) socket.terminate();
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
      this.#server.closeAllConnections();
    });
  }
}
