import { NbdServer, type NbdServerOptions } from "../nbd/nbd-server.ts";
import type { HeldSockets } from "./held-sockets.ts";

export interface HeldExportOptions extends Omit<NbdServerOptions, "listener"> {
  readonly sockets: HeldSockets;
}

/**
 * An export that QEMU has not lost when this process ends: it waits on the same socket for the next
 * agent. Only `close` gives the socket up.
 */
export class HeldExport {
  /** Resolves when the export is that, or cannot be. It never rejects. */
  readonly held: Promise<void>;
  readonly #options: HeldExportOptions;
  readonly #server: NbdServer;

  private constructor(options: HeldExportOptions, server: NbdServer, held: Promise<void>) {
    this.#options = options;
    this.#server = server;
    this.held = held;
  }

  /** Whoever connects is served when it resolves. */
  static async open(options: HeldExportOptions): Promise<HeldExport> {
    const { sockets, socketPath } = options;
    const { descriptor: listener, held } = await sockets.listen(socketPath);
    try {
      return new HeldExport(options, await NbdServer.open({ ...options, listener }), held);
    } catch (error) {
      await sockets.giveUp(socketPath);
      throw error;
    }
  }

  async close(): Promise<void> {
    // Its descriptor is to be sent before it is closed.
    await this.held;
    await this.#server.close();
    await this.#options.sockets.giveUp(this.#options.socketPath);
  }
}
