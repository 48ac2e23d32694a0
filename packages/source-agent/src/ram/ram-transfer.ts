/**
 * QEMU's stream on its way to the dest: socket → decoder → RamSender →
 * FrameCompressor → BulkSender. It reads as
 * fast as the link takes frames; when that is slower than QEMU, the unix socket backs up and QEMU
 * waits.
 */
import type { Clock } from "@vmferry/core";
import { collectYoungGarbage } from "@vmferry/agent";
import { encodeShut, StreamDecoder } from "@vmferry/qemu";
import { MigrationSocket } from "../adapters/migration-socket.ts";
import { BulkSender, type BulkConnection } from "../transport/bulk-sender.ts";
import { FrameCompressor } from "../transport/frame-compressor.ts";
import { RamSender } from "./ram-sender.ts";

export interface RamTransferOptions {
  readonly socketPath: string;
  readonly connections: readonly BulkConnection[];
  readonly creditBytes: number;
  readonly bandwidthBytesPerSecond: number | null;
  /** Both agents have zstd. */
  readonly compression: boolean;
  readonly hashSeed: string;
  readonly clock: Clock;
  /** Every page is on its way; the digest covers what was sent. */
  readonly onRamSent: (ramDigest: string) => void;
  /** QEMU's stream is not what it should be, or ended too early. */
  readonly onFailed: (error: unknown) => void;
}

export class RamTransfer {
  readonly sender: RamSender;
  readonly out: BulkSender;
  readonly #compressor: FrameCompressor;
  readonly #decoder: StreamDecoder;
  readonly #onFailed: (error: unknown) => void;
  #socket!: MigrationSocket;
  #failed = false;

  private constructor(options: RamTransferOptions) {
    this.#onFailed = options.onFailed;
    this.out = new BulkSender({
      connections: options.connections,
      creditBytes: options.creditBytes,
      bandwidthBytesPerSecond: options.bandwidthBytesPerSecond,
      clock: options.clock,
      onIdle: () => {
        this.#resume();
      },
      onFailed: options.onFailed,
    });
    this.#compressor = new FrameCompressor({
      out: this.out,
      clock: options.clock,
      enabled: options.compression,
      onReady: () => {
        this.#resume();
      },
      onGarbage: collectYoungGarbage,
      onFailed: options.onFailed,
    });
    this.sender = new RamSender({
      out: this.#compressor,
      clock: options.clock,
      hashSeed: options.hashSeed,
      onRamSent: options.onRamSent,
    });
    this.#decoder = new StreamDecoder(this.sender);
  }

  /** Listens for QEMU on a socket of its own. */
  static async open(options: RamTransferOptions): Promise<RamTransfer> {
    const transfer = new RamTransfer(options);
    transfer.#socket = await MigrationSocket.listen(options.socketPath, {
      onChunk: (chunk) => transfer.#push(chunk),
      onEnd: () => {
        transfer.#attempt(() => {
          transfer.#decoder.end();
        });
      },
    });
    return transfer;
  }

  /** What the dest has not acknowledged, and what waits for it here. */
  get pendingBytes(): number {
    return this.#compressor.pendingBytes;
  }

  /** What a byte of the guest has become on the wire so far, at most 1. */
  get wireShare(): number {
    return this.#compressor.wireShare;
  }

  /** What QEMU is told to migrate to. */
  get uri(): string {
    return `unix:${this.#socket.path}`;
  }

  /** Bytes of the dest QEMU's return path. */
  returnPath(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Tells QEMU that the dest has everything: it ends as `completed` and never resumes by itself. */
  forwardShut(): void {
    this.#socket.write(encodeShut(0));
  }

  /** Before SHUT was forwarded this makes QEMU fail the migration and resume the guest. */
  async close(): Promise<void> {
    this.#failed = true;
    this.#compressor.stop();
    this.out.stop();
    await this.#socket.close();
  }

  #push(chunk: Buffer): boolean {
    this.#attempt(() => {
      this.#decoder.push(chunk);
      if (this.pendingBytes === 0) this.sender.flush();
    });
    if (this.#compressor.ready) return true;
    this.#compressor.waited();
    return false;
  }

  #resume(): void {
    if (this.#failed || !this.#compressor.ready) return;
    // What is collected goes out rather than keep an idle link waiting for a full frame.
    if (this.pendingBytes === 0) this.sender.flush();
    this.#socket.resume();
  }

  #attempt(step: () => void): void {
    if (this.#failed) return;
    try {
      step();
    } catch (error) {
      this.#failed = true;
      this.#onFailed(error);
    }
  }
}
