import { NbdServer, type HeldSockets, type NbdServerOptions } from "@vmferry/block";

export interface HeldExportOptions extends Omit<NbdServerOptions, "listener"> {
  readonly sockets: HeldSockets;
}

/**
 * An export that QEMU has not lost when this process ends: it waits on the same socket for the next
 * agent. Only `close` gives the socket up.
 */
export class HeldExport {
  readonly #options: HeldExportOptions;
  readonly #server: NbdServer;

  private constructor(options: HeldExportOptions, server: NbdServer) {
    this.#options = options;
    this.#server = server;
  }

  static async open(options: HeldExportOptions): Promise<HeldExport> {
    const { sockets, socketPath } = options;
    const listener = await sockets.listen(socketPath);
    try {
      return new HeldExport(options, await NbdServer.open({ ...options, listener }));
    } catch (error) {
      await sockets.giveUp(socketPath);
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#server.close();
    await this.#options.sockets.giveUp(this.#options.socketPath);
  }
}
