/**
 * QEMU's stream on its way to the dest: socket → decoder → RamSender → Transport. It reads as fast
 * as the link takes frames; when that is slower than QEMU, the unix socket backs up and QEMU waits.
 */
import { failpoint, type Clock } from "@vmferry/core";
import { encodeShut, StreamDecoder, type RamBlock } from "@vmferry/qemu";
import { MigrationSocket } from "../adapters/migration-socket.ts";
import type { Filler, Transport } from "../transport/transport.ts";
import type { Drain, DrainStart, DrainStore } from "./drain.ts";
import { DrainPace } from "./drain-pace.ts";
import { RamSender } from "./ram-sender.ts";

/** A store that fills up, and empties by itself. */
export type Overflow = DrainStore & { readonly hasRoom: boolean };

export interface RamTransferOptions {
  readonly socketPath: string;
  readonly transport: Transport;
  readonly hashSeed: string;
  readonly clock: Clock;
  /** Every page is on its way; the digest covers what was sent. */
  readonly onRamSent: (ramDigest: string) => void;
  /** QEMU's stream is not what it should be, or ended too early. */
  readonly onFailed: (error: unknown) => void;
}

export class RamTransfer implements Filler {
  readonly sender: RamSender;
  readonly #transport: Transport;
  readonly #decoder: StreamDecoder;
  readonly #onFailed: (error: unknown) => void;
  #socket!: MigrationSocket;
  #failed = false;
  #readBytes = 0;
  #waitedMs = 0;
  #waitingSinceMs: number | null = null;
  readonly #clock: Clock;
  /** Where pages go from the drain on; null where none is wanted. */
  #overflow: Overflow | null = null;
  /** Of a drain that begins in the first pass. */
  #pace: DrainPace | null = null;

  private constructor(options: RamTransferOptions) {
    this.#onFailed = options.onFailed;
    this.#transport = options.transport;
    this.#clock = options.clock;
    this.sender = new RamSender({
      out: options.transport.frames,
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
    options.transport.addFiller(transfer);
    return transfer;
  }

  /** What QEMU is told to migrate to. */
  get uri(): string {
    return `unix:${this.#socket.path}`;
  }

  /** Bytes that QEMU has sent. */
  get readBytes(): number {
    return this.#readBytes;
  }

  /** How long reading has waited for the link. */
  get waitedMs(): number {
    if (this.#waitingSinceMs === null) return this.#waitedMs;
    return this.#waitedMs + this.#clock.nowMs() - this.#waitingSinceMs;
  }

  /** RAM was announced: it is known which pages there are. */
  get blocks(): readonly RamBlock[] | null {
    return this.sender.blocks;
  }

  /**
   * QEMU does not wait for the link any more: pages go to the store, from the second pass on or from
   * now on, and the link is left to what will not be out of date soon. All else would
   * have to arrive before the guest may run, and would take the processors from whoever reads QEMU;
   * so does compressing. `roomAgain` is to be called when the store has room.
   */
  drain(store: Overflow, deviceState: Drain["deviceState"], start: DrainStart): void {
    this.#overflow = store;
    this.#transport.frames.compressPages(false);
    if (start === "outrun") {
      const { sender } = this;
      const transport = this.#transport;
      this.#pace = new DrainPace({
        ...{ sender, transport, frames: transport.frames, store, clock: this.#clock },
        attempt: (step) => {
          this.#attempt(step);
        },
        onRested: () => {
          this.#readOn();
        },
      });
    }
    this.sender.drain({ store, start, deviceState, link: this.#pace });
    this.#socket.resume();
  }

  /** QEMU has begun its third pass. */
  secondPassOver(): void {
    this.#pace?.secondPassOver();
  }

  /** Of a drain that is under way: what need not be sent before the stun is not. */
  goNow(): void {
    this.#pace?.goNow();
    this.#attempt(() => {
      this.sender.drainNow();
    });
  }

  /** The guest stands still: whatever QEMU has to say is read as fast as can be. */
  hurry(): void {
    this.#pace?.hurry();
  }

  roomAgain(): void {
    this.#readOn();
  }

  /** Bytes of the dest QEMU's return path. */
  returnPath(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Tells QEMU that the dest has everything: it ends as `completed` and never resumes by itself. */
  forwardShut(): void {
    failpoint("shut.forward.before");
    this.#socket.write(encodeShut(0));
    failpoint("shut.forward.after");
  }

  /** Before SHUT was forwarded this makes QEMU fail the migration and resume the guest. */
  async close(): Promise<void> {
    this.#failed = true;
    this.#pace?.stop();
    await this.#socket.close();
  }

  #push(chunk: Buffer): boolean {
    this.#readBytes += chunk.length;
    this.#pace?.chunkCame();
    this.#attempt(() => {
      this.#decoder.push(chunk);
      this.#flushWhenIdle();
    });
    if (this.#mayRead()) return true;
    if (this.#storeInUse !== null) return false;
    this.#waitingSinceMs ??= this.#clock.nowMs();
    return false;
  }

  fill(): void {
    if (this.#failed) return;
    this.#pace?.fill();
    this.#flushWhenIdle();
    this.#readOn();
  }

  #readOn(): void {
    if (!this.#mayRead()) return;
    this.#waitedMs = this.waitedMs;
    this.#waitingSinceMs = null;
    this.#socket.resume();
  }

  #mayRead(): boolean {
    const store = this.#storeInUse;
    if (store === null) return this.#transport.ready;
    if (this.#pace?.mayRead() === false) return false;
    return store.hasRoom;
  }

  /** Null while pages go over the link: what is left of the first pass waits for it. */
  get #storeInUse(): Overflow | null {
    return this.sender.drainStage === null ? null : this.#overflow;
  }

  /** What is collected goes out rather than keep an idle link waiting for a full frame. */
  #flushWhenIdle(): void {
    if (this.#transport.pendingBytes === 0) this.sender.flush();
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
