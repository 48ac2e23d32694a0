/**
 * Serves one export on a unix socket, to one client at a time. A newer client replaces the older
 * one, because QEMU reconnects when it has lost its connection and then re-sends what it had under
 * way: the newer client's handshake is answered only when the older connection has ended and the
 * device has settled all of its requests. An old write therefore never lands after a new one.
 *
 *   connection -> handshake -> waits until the export is free -> transmission -> over
 */
import { chmodSync } from "node:fs";
import { lstat, unlink } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { assert, Deferred, messageOf, systemClock, type Clock } from "@vmferry/core";
import type { BlockDevice } from "../block-device.ts";
import type { ServedExport } from "./handshake.ts";
import { NbdConnection, type Admission } from "./nbd-connection.ts";
import { NbdError } from "./nbd-error.ts";
import { HANDSHAKES_MAX, NAME_BYTES_MAX } from "./nbd-limits.ts";

export interface NbdServerOptions {
  readonly socketPath: string;
  /**
   * Listens there already, and is this server's to close; the path is left to whoever made it.
   * Without it a socket is made, and removed at the end.
   */
  readonly listener?: number;
  /** The empty name selects the export too. */
  readonly exportName: string;
  readonly device: BlockDevice;
  readonly readOnly?: boolean;
  /** A client's handshake is done. */
  readonly onAttached?: () => void;
  /** That client's connection is over and all its requests have settled. */
  readonly onDetached?: () => void;
  /** For the log: a client was dropped (NbdError), or a device rejected with no BlockError. */
  readonly onFault?: (error: unknown) => void;
  readonly clock?: Clock;
  /** Handshakes at once; further connections are closed. */
  readonly connectionsMax?: number;
}

export class NbdServer {
  readonly #options: NbdServerOptions;
  readonly #served: ServedExport;
  readonly #listener: Server;
  readonly #connections = new Map<NbdConnection, Promise<void>>();
  /** Has completed its handshake last; every other one makes way for it. */
  #newest: NbdConnection | null = null;
  /** The one in transmission; `over` when its requests have settled. */
  #client: { readonly over: Promise<void> } | null = null;

  private constructor(options: NbdServerOptions) {
    const name = Buffer.from(options.exportName);
    assert(name.length <= NAME_BYTES_MAX, "the export's name fits an option");
    const { sizeBytes } = options.device;
    assert(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0, "an export has a size");
    this.#options = options;
    this.#served = { name, sizeBytes, readOnly: options.readOnly ?? false };
    this.#listener = createServer({ allowHalfOpen: true }, (socket) => {
      this.#accept(socket);
    });
  }

  /** Replaces a socket that an earlier process left at the path. Rejects with NbdError. */
  static async open(options: NbdServerOptions): Promise<NbdServer> {
    const server = new NbdServer(options);
    try {
      if (options.listener === undefined) await removeSocket(options.socketPath);
      await server.#listen(options);
    } catch (error) {
      server.#listener.close();
      throw listenFailed(options.socketPath, error);
    }
    return server;
  }

  /** A client is in transmission, or its requests have not settled yet. */
  get attached(): boolean {
    return this.#client !== null;
  }

  /** Ends every connection; resolves when the device has settled their requests. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#listener.close(() => {
        resolve();
      });
    });
    for (const connection of this.#connections.keys()) connection.end();
    await Promise.all([closed, ...this.#connections.values()]);
  }

  async #listen({ socketPath: path, listener: fd }: NbdServerOptions): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#listener.once("error", reject);
      this.#listener.listen(fd === undefined ? { path } : { fd }, () => {
        this.#listener.off("error", reject);
        resolve();
      });
    });
    // Before the event loop accepts anybody. A umask would hold for other threads' files too.
    if (fd === undefined) chmodSync(path, 0o600);
    // That one connection could not be accepted is no reason to refuse the next.
    this.#listener.on("error", (error) => {
      this.#options.onFault?.(error);
    });
  }

  #accept(socket: Socket): void {
    const handshakes = this.#connections.size - (this.#client === null ? 0 : 1);
    if (!this.#listener.listening || handshakes >= this.#handshakesMax) {
      socket.destroy();
      return;
    }
    const connection = new NbdConnection(socket, {
      served: this.#served,
      device: this.#options.device,
      clock: this.#options.clock ?? systemClock,
      onFault: (error) => this.#options.onFault?.(error),
    });
    this.#connections.set(connection, this.#serve(connection));
  }

  get #handshakesMax(): number {
    return this.#options.connectionsMax ?? HANDSHAKES_MAX;
  }

  /** From the first byte to the last; never rejects. */
  async #serve(connection: NbdConnection): Promise<void> {
    try {
      const admission = await connection.negotiate();
      if (admission !== null) await this.#attach(connection, admission);
    } catch (error) {
      this.#options.onFault?.(error);
    } finally {
      connection.end();
      this.#connections.delete(connection);
      if (this.#newest === connection) this.#newest = null;
    }
  }

  async #attach(connection: NbdConnection, admission: Admission): Promise<void> {
    this.#newest?.end();
    this.#newest = connection;
    while (this.#client !== null && !connection.ended) {
      await Promise.race([this.#client.over, connection.closed]);
    }
    // Its client has left meanwhile, or a newer one has come.
    if (connection.ended) return;

    const over = new Deferred();
    this.#client = { over: over.promise };
    try {
      this.#options.onAttached?.();
      await connection.transmit(admission);
    } finally {
      this.#client = null;
      over.resolve();
      this.#options.onDetached?.();
    }
  }
}

async function removeSocket(path: string): Promise<void> {
  try {
    if ((await lstat(path)).isSocket()) await unlink(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

function listenFailed(path: string, error: unknown): NbdError {
  const systemCode = (error as NodeJS.ErrnoException).code ?? "unknown";
  return new NbdError(
    `cannot listen on the NBD socket ${path}: ${messageOf(error)}`,
    { code: "nbd-listen-failed", path, systemCode },
    { cause: error },
  );
}
