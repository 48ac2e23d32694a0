// The QEMU side of a QMP session for tests: it says exactly what the test tells it to say.

import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface SentCommand {
  readonly execute: string;
  readonly arguments?: unknown;
  readonly id: string;
}

export const GREETING = {
  QMP: { version: { qemu: { micro: 2, minor: 0, major: 10 }, package: "test" }, capabilities: [] },
};

export class ScriptedQmpPeer {
  readonly path: string;
  readonly commands: SentCommand[] = [];
  /** Called for each command after `qmp_capabilities`, which is answered by itself. */
  onCommand: (command: SentCommand) => void = () => undefined;
  /** What is sent on connection. */
  greeting: string = JSON.stringify(GREETING) + "\r\n";
  /** False leaves `qmp_capabilities` to `onCommand`. */
  answersCapabilities = true;
  readonly #directory: string;
  readonly #server: Server;
  #socket: Socket | null = null;

  private constructor(directory: string) {
    this.#directory = directory;
    this.path = join(directory, "qmp.sock");
    this.#server = createServer((socket) => {
      this.#serve(socket);
    });
  }

  static async listen(): Promise<ScriptedQmpPeer> {
    const peer = new ScriptedQmpPeer(await mkdtemp(join(tmpdir(), "qmp-peer-")));
    await new Promise<void>((resolve) => {
      peer.#server.listen(peer.path, resolve);
    });
    return peer;
  }

  get socket(): Socket {
    if (this.#socket === null) throw new Error("nobody has connected");
    return this.#socket;
  }

  send(message: unknown): void {
    this.sendRaw(JSON.stringify(message) + "\r\n");
  }

  sendRaw(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  sendEvent(name: string, data?: unknown): void {
    this.send({ event: name, data, timestamp: { seconds: 12, microseconds: 34 } });
  }

  async close(): Promise<void> {
    this.#socket?.destroy();
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
    await rm(this.#directory, { recursive: true });
  }

  #serve(socket: Socket): void {
    this.#socket = socket;
    socket.on("error", () => undefined);
    socket.write(this.greeting);
    let text = "";
    socket.setEncoding("utf8").on("data", (chunk) => {
      text += String(chunk);
      for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n")) {
        const command = JSON.parse(text.slice(0, end)) as SentCommand;
        text = text.slice(end + 1);
        this.commands.push(command);
        if (command.execute === "qmp_capabilities" && this.answersCapabilities) {
          this.send({ return: {}, id: command.id });
        } else {
          this.onCommand(command);
        }
      }
    });
  }
}
