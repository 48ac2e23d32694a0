/**
 * Puts frames of several bulk connections into an order that is safe: frames of one pass as they
 * come, the next pass only when every connection has delivered its barrier of this one.
 *
 * What waits here is bounded by the credit that the source was given, and barriers by their number.
 */
import { violation } from "@vmferry/protocol";

/** Frames of one connection that may be ahead of the others. */
const WAITING_MAX = 65_536;

export interface GatedFrame {
  readonly pass: number;
  readonly barrier: boolean;
}

export class PassGate<F extends GatedFrame> {
  readonly #admit: (frame: F) => void;
  readonly #waiting: F[][];
  readonly #barrierSeen: boolean[];
  #pass = 0;

  constructor(connections: number, admit: (frame: F) => void) {
    this.#admit = admit;
    this.#waiting = Array.from({ length: connections }, () => []);
    this.#barrierSeen = Array.from({ length: connections }, () => false);
  }

  get pass(): number {
    return this.#pass;
  }

  push(connection: number, frame: F): void {
    if (this.#waiting[connection]!.push(frame) > WAITING_MAX) throw violation("too many frames");
    this.#drain(connection);
    while (this.#barrierSeen.every((seen) => seen)) {
      this.#pass++;
      this.#barrierSeen.fill(false);
      for (let i = 0; i < this.#waiting.length; i++) this.#drain(i);
    }
  }

  #drain(connection: number): void {
    const waiting = this.#waiting[connection]!;
    let taken = 0;
    while (taken < waiting.length && !this.#barrierSeen[connection]!) {
      const frame = waiting[taken++]!;
      if (frame.pass !== this.#pass) throw violation("frame of another pass than its connection's");
      if (frame.barrier) this.#barrierSeen[connection] = true;
      else this.#admit(frame);
    }
    waiting.splice(0, taken);
  }
}
