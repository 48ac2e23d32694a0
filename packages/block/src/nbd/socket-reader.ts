/**
 * A socket's bytes by the piece, for one reader at a time. While nobody waits for more, the socket
 * is paused: the backlog stays at the chunk in hand and what the stream had read ahead, whatever
 * the client sends.
 */
import type { Socket } from "node:net";
import { Deferred } from "@vmferry/core";

export class SocketReader {
  readonly #socket: Socket;
  readonly #chunks: Buffer[] = [];
  #more: Deferred | null = null;
  #ended = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      if (this.#more === null) socket.pause();
      this.#wake();
    });
    // An end is told behind the bytes before it; a close comes at once, and they are void.
    socket.on("end", () => {
      this.#ended = true;
      this.#wake();
    });
    socket.on("close", () => {
      this.#ended = true;
      this.#chunks.length = 0;
      this.#wake();
    });
  }

  /** A view where one chunk holds all of it. Null when the connection ends before. */
  async take(length: number): Promise<Buffer | null> {
    if (length > 0 && !(await this.#available())) return null;
    return this.#view(length) ?? (await this.#gather(length));
  }

  /** Like `take`, for bytes that are kept: they never hold much more memory than their own. */
  async takeToKeep(length: number): Promise<Buffer | null> {
    if (!(await this.#available())) return null;
    const chunkBytes = this.#chunks[0]!.buffer.byteLength;
    const view = chunkBytes <= 4 * length ? this.#view(length) : null;
    return view ?? (await this.#gather(length));
  }

  /** False when the connection ends before. */
  async skip(length: number): Promise<boolean> {
    let left = length;
    while (left > 0) {
      if (!(await this.#available())) return false;
      left -= this.#shift(left).length;
    }
    return true;
  }

  #view(length: number): Buffer | null {
    const first = this.#chunks[0];
    return first !== undefined && first.length >= length ? this.#shift(length) : null;
  }

  async #gather(length: number): Promise<Buffer | null> {
    // Not from the pool, whose slabs would be held by every small piece of them that is kept.
    const whole = Buffer.allocUnsafeSlow(length);
    let filled = 0;
    while (filled < length) {
      if (!(await this.#available())) return null;
      filled += this.#shift(length - filled).copy(whole, filled);
    }
    return whole;
  }

  /** At most `bytesMax` of the first chunk. */
  #shift(bytesMax: number): Buffer {
    const first = this.#chunks[0]!;
    if (first.length > bytesMax) {
      this.#chunks[0] = first.subarray(bytesMax);
      return first.subarray(0, bytesMax);
    }
    this.#chunks.shift();
    return first;
  }

  async #available(): Promise<boolean> {
    while (this.#chunks.length === 0) {
      if (this.#ended) return false;
      this.#more = new Deferred();
      this.#socket.resume();
      await this.#more.promise;
    }
    return true;
  }

  #wake(): void {
    this.#more?.resolve();
    this.#more = null;
  }
}
