/** For tests: the QEMU of a guest that lacks memory, which is made to listen over its standby monitor. */
import { constants, openSync } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { createServer, Socket, type Server } from "node:net";
import type { ManualClock } from "@vmferry/agent";
import {
  COMMAND,
  encodeRecvBitmap,
  encodeResumeAck,
  encodeShut,
  guestPaths,
  PAGE_BYTES,
  StandbyMonitor,
  StreamDecoder,
} from "@vmferry/qemu";
import { expect } from "vitest";

export const GUEST = "web1";
export const STUN = {
  migrationId: "9f0c1e5a-3b7d-4c2e-8a61-5d4f3e2b1a09",
  epoch: 2,
  generation: 1,
};
export const CLAIM = { ...STUN, incarnation: "s1" };
export const SECTION = { sectionId: 3, blocks: [{ name: "pc.ram", lengthBytes: 64 * PAGE_BYTES }] };

/** In post-copy; unless told otherwise with all of its memory, so that it needs END of ram alone. */
export class FakeQemu {
  /** Of `migrate-recover`; null where it does not listen. */
  refusal: string | null = null;
  lacksMemory = false;
  /** How often it was made to. */
  listens = 0;
  readonly #input: Socket;
  readonly #output: FileHandle;
  readonly #servers: Server[] = [];
  readonly #sockets: Socket[] = [];

  private constructor(input: Socket, output: FileHandle) {
    this.#input = input;
    this.#output = output;
    input.on("data", (chunk: Buffer) => {
      for (const line of chunk.toString().trim().split("\n")) void this.#answer(line);
    });
  }

  /** Of the guest that this directory is of. */
  static async open(directory: string): Promise<FakeQemu> {
    const { standby } = guestPaths(directory);
    await StandbyMonitor.make(standby);
    const flags = constants.O_RDWR | constants.O_NONBLOCK;
    const input = new Socket({ fd: openSync(`${standby}.in`, flags), writable: false });
    return new FakeQemu(input, await open(`${standby}.out`, flags));
  }

  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.dropConnections();
    for (const server of this.#servers) server.close();
    this.#input.destroy();
    await this.#output.close();
  }

  async #answer(line: string): Promise<void> {
    const { id, arguments: told } = JSON.parse(line) as { id: string; arguments: { uri: string } };
    if (this.refusal === null) await this.#listen(told.uri.slice("unix:".length));
    const error = { class: "GenericError", desc: this.refusal };
    const answer = this.refusal === null ? { return: {}, id } : { error, id };
    await this.#output.write(`${JSON.stringify(answer)}\r\n`);
  }

  async #listen(path: string): Promise<void> {
    this.listens++;
    const server = createServer((socket) => {
      this.#sockets.push(socket);
      const ignored = (): void => undefined;
      const decoder = new StreamDecoder(
        {
          command: (command) => {
            const has = Buffer.alloc(8, this.lacksMemory ? 0 : 0xff);
            const isResume = command === COMMAND.POSTCOPY_RESUME;
            socket.write(isResume ? encodeResumeAck(1) : encodeRecvBitmap("pc.ram", has));
          },
          deviceState: () => socket.write(encodeShut(0)),
          ...{ verbatim: ignored, ramStart: ignored, partEnd: ignored, ramEnd: ignored },
          ...{ page: ignored, zeroPage: ignored },
        },
        {},
        SECTION,
      );
      socket.on("error", ignored).on("data", (chunk: Buffer) => {
        decoder.push(chunk);
      });
    });
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(path, resolve));
  }
}

/** What waits for time gets it. */
export async function later(clock: ManualClock, isSo: () => boolean): Promise<void> {
  await expect
    .poll(
      () => {
        clock.advance(1000);
        return isSo();
      },
      { interval: 2, timeout: 10_000 },
    )
    .toBe(true);
}

/** Long enough for every limit there is, and for several attempts. */
export async function muchTime(clock: ManualClock): Promise<void> {
  for (let second = 0; second < 200; second++) {
    clock.advance(1000);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
