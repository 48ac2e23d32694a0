/**
 * The frames of one bulk index, over one connection after another. A frame and its buffer are kept
 * until the dest has counted the frame; a connection that takes the place of a lost one begins with
 * the first that the dest does not have.
 *
 * What is kept is bounded by the dest's credit, for a frame that it has not received it has not given
 * credit for, and by the steps in which the dest counts.
 */
import { PeerError, SentLog } from "@vmferry/agent";
import { violation } from "@vmferry/protocol";
import type { BulkConnection } from "./bulk-sender.ts";

/** Connections in a row on which nothing of what waits came through. */
const FRUITLESS_MAX = 20;

/** The connection of the moment. */
export interface LaneSocket {
  readonly receivedFrames: number;
  readonly bufferedBytes: number;
  send(frame: Buffer): void;
}

interface KeptFrame {
  readonly view: Buffer;
  readonly flushed: () => void;
}

export class BulkLane implements BulkConnection {
  readonly #frames = new SentLog<KeptFrame>(Infinity);
  #socket: LaneSocket | null = null;
  /** Frames that some connection has taken. */
  #handedCount = 0;
  #resentBytes = 0;
  #fruitless = 0;

  /** Bytes of frames that went out once more. */
  get resentBytes(): number {
    return this.#resentBytes;
  }

  /** Of frames that the dest has not counted yet. */
  get keptBytes(): number {
    return this.#frames.kept.reduce((sum, { view }) => sum + view.length, 0);
  }

  /** Without a connection there is always a better one. */
  get bufferedBytes(): number {
    return this.#socket?.bufferedBytes ?? Infinity;
  }

  send(view: Buffer, flushed: () => void): void {
    this.#frames.push({ view, flushed });
    if (this.#socket === null) return;
    this.#handedCount++;
    this.#socket.send(view);
  }

  /** Throws when the dest claims more than it was sent. */
  received(count: number): void {
    if (count > this.#handedCount) throw violation("more frames received than were sent");
    for (const { flushed } of this.#frames.received(count)) flushed();
  }

  /** Frames wait from now on. */
  lost(): void {
    this.#socket = null;
  }

  /** Goes on over `socket`. Throws what speaks against trying that again. */
  connect(socket: LaneSocket): void {
    const { receivedCount } = this.#frames;
    this.received(socket.receivedFrames);
    if (this.#frames.receivedCount < this.#handedCount) {
      this.#fruitless = this.#frames.receivedCount > receivedCount ? 0 : this.#fruitless + 1;
    }
    if (this.#fruitless > FRUITLESS_MAX) {
      const text = "a bulk connection is lost each time before anything comes through";
      throw new PeerError(text, { code: "peer-lost", closeCode: null });
    }
    this.#socket = socket;
    let number = this.#frames.receivedCount;
    for (const { view } of this.#frames.kept) {
      if (number++ < this.#handedCount) this.#resentBytes += view.length;
      socket.send(view);
    }
    this.#handedCount = number;
  }
}
