/**
 * The unix socket that the source's QEMU migrates to. It accepts one connection, closes the door
 * behind it, and hands on what it reads only as fast as the reader wants it.
 */
import { rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { Deferred } from "@vmferry/core";

export class MigrationSocket {
  readonly path: string;
  /** QEMU has closed its end, or the connection failed; never rejects. */
  readonly closed: Promise<void>;
  readonly #closed = new Deferred();
  readonly #server: Server;
  readonly #connected = new Deferred<Socket>();
  #socket: Socket | null = null;

  private constructor(path: string) {
    this.path = path;
    this.closed = this.#closed.promise;
    this.#server = createServer((socket) => {
      this.#server.close();
      if (this.#socket !== null) {
        socket.destroy();
        return;
      }
      this.#socket = socket;
      socket.on("error", () => undefined);
      socket.on("close", () => {
        this.#closed.resolve();
      });
      this.#connected.resolve(socket);
    });
  }

  static async listen(path: string): Promise<MigrationSocket> {
    const listener = new MigrationSocket(path);
    await rm(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      listener.#server.once("error", reject);
      listener.#server.listen(path, resolve);
    });
    return listener;
  }

  /** Calls `onChunk` for each piece, as soon as QEMU has connected. The piece is the caller's. */
  read(onChunk: (chunk: Buffer) => void, onEnd: () => void): void {
    void this.#connected.promise.then((socket) => {
      socket.on("data", onChunk);
      socket.on("end", onEnd);
    });
  }

  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  /** Writes on the return path. */
  write(bytes: Uint8Array): void {
    this.#socket?.write(bytes);
  }

  /** QEMU takes a closed return path for a failure, unless SHUT was written before. */
  async close(): Promise<void> {
    this.#socket?.destroy();
    this.#server.close();
    await rm(this.path, { force: true });
  }
}
