/**
 * The unix socket that the source's QEMU migrates to. It accepts one connection, closes the door
 * behind it, and hands on what it reads only as fast as the reader wants it.
 */
import { rm } from "node:fs/promises";
import { createServer, Socket, type Server, type SocketConstructorOpts } from "node:net";
import { Deferred } from "@vmferry/core";

const READ_BYTES = 256 * 1024;

export interface StreamReader {
  /** Gets each piece, valid during the call; false = no more until `resume`. */
  onChunk(chunk: Buffer): boolean;
  onEnd(): void;
}

export class MigrationSocket {
  readonly path: string;
  readonly #server: Server;
  readonly #connected = new Deferred<Socket>();
  #socket: Socket | null = null;

  private constructor(path: string, reader: StreamReader) {
    this.path = path;
    this.#server = createServer({ pauseOnConnect: true }, (accepted) => {
      this.#server.close();
      if (this.#socket !== null) {
        accepted.destroy();
        return;
      }
      const socket = readInPlace(accepted, reader);
      this.#socket = socket;
      socket.on("error", () => undefined);
      socket.on("end", () => {
        reader.onEnd();
      });
      socket.resume();
      this.#connected.resolve(socket);
    });
  }

  static async listen(path: string, reader: StreamReader): Promise<MigrationSocket> {
    const listener = new MigrationSocket(path, reader);
    await rm(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      listener.#server.once("error", reject);
      listener.#server.listen(path, resolve);
    });
    return listener;
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

/**
 * Reads into one buffer that is used again and again. A socket that `net.Server` accepts allocates
 * 64 KiB for every read instead, and that garbage cost as much CPU as all other work on the stream;
 * Node offers `onread` for sockets that one makes oneself, so the accepted handle is moved into
 * such a one. Should a later Node keep the handle elsewhere, the accepted socket is read as it is.
 */
function readInPlace(accepted: Socket, reader: StreamReader): Socket {
  const holder = accepted as unknown as { _handle?: object | null };
  const handle = holder._handle;
  if (handle === undefined || handle === null) {
    accepted.on("data", (chunk: Buffer) => {
      if (!reader.onChunk(chunk)) accepted.pause();
    });
    return accepted;
  }
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  const options = {
    handle,
    onread: {
      buffer,
      callback: (bytes: number): boolean => reader.onChunk(buffer.subarray(0, bytes)),
    },
  };
  // `handle` is what net.Server itself passes; its type is not public.
  const socket = new Socket(options as SocketConstructorOpts);
  holder._handle = null;
  return socket;
}
