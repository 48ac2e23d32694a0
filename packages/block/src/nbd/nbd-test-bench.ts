// An NBD server over a disk in memory, and clients for it, in a directory of their own.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock } from "@vmferry/core";
import { MemoryDevice } from "../memory-device.ts";
import { NbdServer, type NbdServerOptions } from "./nbd-server.ts";
import { rawHandshake, RawNbdClient, u32, type HandshakeWishes } from "./raw-nbd-client.ts";

export class NbdTestBench {
  readonly directory: string;
  readonly socketPath: string;
  readonly device: MemoryDevice;
  /** What the server has called back for, in order. */
  readonly events: ("attached" | "detached")[] = [];
  readonly faults: unknown[] = [];
  readonly #clients: RawNbdClient[] = [];
  #server: NbdServer | null = null;

  private constructor(directory: string, sizeBytes: number) {
    this.directory = directory;
    this.socketPath = join(directory, "nbd.sock");
    this.device = new MemoryDevice(sizeBytes);
  }

  static async open(
    options: Partial<NbdServerOptions> = {},
    sizeBytes = 1024 * 1024,
  ): Promise<NbdTestBench> {
    const bench = new NbdTestBench(await mkdtemp(join(tmpdir(), "nbd-")), sizeBytes);
    await bench.serve(options);
    return bench;
  }

  get server(): NbdServer {
    if (this.#server === null) throw new Error("nobody serves");
    return this.#server;
  }

  /** Ends the server that there was, and starts one with these options. */
  async serve(options: Partial<NbdServerOptions> = {}): Promise<void> {
    await this.#server?.close();
    this.#server = await NbdServer.open({
      socketPath: this.socketPath,
      exportName: "disk0",
      device: this.device,
      onAttached: () => this.events.push("attached"),
      onDetached: () => this.events.push("detached"),
      onFault: (error) => this.faults.push(error),
      ...options,
    });
  }

  async connect(): Promise<RawNbdClient> {
    const client = await RawNbdClient.connect(this.socketPath);
    this.#clients.push(client);
    return client;
  }

  /** A client that has been greeted and has sent its flags. */
  async greet(): Promise<RawNbdClient> {
    const client = await this.connect();
    await client.receive(18);
    client.send(u32(3));
    return client;
  }

  /** A client in transmission. */
  async attach(wishes: HandshakeWishes = {}): Promise<RawNbdClient> {
    const client = await this.connect();
    await client.handshake(wishes);
    return client;
  }

  /** A client that has asked for the transmission; whoever was in it is ended. */
  async knock(): Promise<RawNbdClient> {
    const client = await this.connect();
    await client.receive(18);
    client.send(rawHandshake());
    return client;
  }

  /** When this resolves the server has dealt with whatever had reached it before. */
  async roundTrip(): Promise<void> {
    const client = await this.greet();
    await client.option(3);
    client.end();
    await client.closed;
  }

  async close(): Promise<void> {
    this.device.release();
    for (const client of this.#clients) client.end();
    await this.#server?.close();
    await rm(this.directory, { recursive: true });
  }
}

/** Time that goes on by hand. */
export class ManualClock implements Clock {
  readonly #timers = new Set<{ readonly atMs: number; readonly callback: () => void }>();
  #nowMs = 0;

  get pending(): number {
    return this.#timers.size;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  date(): Date {
    return new Date(this.#nowMs);
  }

  after(ms: number, callback: () => void): () => void {
    const timer = { atMs: this.#nowMs + ms, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  advance(ms: number): void {
    this.#nowMs += ms;
    for (const timer of this.#timers) {
      if (timer.atMs > this.#nowMs) continue;
      this.#timers.delete(timer);
      timer.callback();
    }
  }
}
