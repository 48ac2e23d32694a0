// One direction of one relayed connection: pieces pass in order, at once or later, or stand still.

import type { Socket } from "node:net";
import { WebSocketSplitter, type WirePiece } from "./web-socket-splitter.ts";

/** What becomes of a piece. `hold` keeps it, and everything behind it, until `release`. */
export type LaneVerdict =
  | { readonly kind: "pass"; readonly bytes: Buffer; readonly after?: () => void }
  | { readonly kind: "hold" };

export interface RelayLaneOptions {
  readonly from: Socket;
  readonly to: Socket;
  readonly judge: (piece: WirePiece) => LaneVerdict;
  readonly blocked: () => boolean;
  readonly delayMs: () => number;
  readonly passed: (bytes: number) => void;
}

interface Waiting {
  /** Null is the end of the connection. */
  readonly bytes: Buffer | null;
  readonly after: () => void;
  readonly dueMs: number;
  /** Nothing passes this piece until `release`. */
  held: boolean;
}

/** Above this much on its way, the sender has to wait as it would for a slow link. */
const WAITING_BYTES_MAX = 8 * 1024 * 1024;

export class RelayLane {
  readonly #options: RelayLaneOptions;
  readonly #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #timer: NodeJS.Timeout | null = null;
  #full = false;

  constructor(options: RelayLaneOptions) {
    this.#options = options;
    const { from, to } = options;
    const splitter = new WebSocketSplitter((piece) => {
      this.#take(piece);
    });
    from.on("data", (chunk) => {
      splitter.push(chunk);
    });
    // The reason of an end is not passed on; its place in the order is.
    from.on("error", () => undefined);
    from.on("close", () => {
      this.#enqueue(null);
    });
    from.on("end", () => {
      this.#enqueue(null);
    });
    to.on("drain", () => {
      this.#full = false;
      this.update();
    });
  }

  /** Looks again whether something may pass. */
  update(): void {
    const { to, passed } = this.#options;
    for (;;) {
      const next = this.#waiting[0];
      if (next === undefined || next.held || this.#full || this.#options.blocked()) break;
      if (!this.#isDue(next)) break;
      this.#waiting.shift();
      if (next.bytes === null) to.end();
      else {
        this.#waitingBytes -= next.bytes.length;
        passed(next.bytes.length);
        this.#full = !to.destroyed && !to.write(next.bytes);
      }
      next.after();
    }
    this.#throttle();
  }

  release(): void {
    for (const waiting of this.#waiting) waiting.held = false;
    this.update();
  }

  #take(piece: WirePiece): void {
    const verdict = this.#options.judge(piece);
    if (verdict.kind === "pass") this.#enqueue(verdict.bytes, { after: verdict.after });
    else this.#enqueue(piece.bytes, { held: true });
  }

  #enqueue(
    bytes: Buffer | null,
    { held = false, after }: { held?: boolean; after?: (() => void) | undefined } = {},
  ): void {
    const dueMs = performance.now() + this.#options.delayMs();
    this.#waiting.push({ bytes, held, dueMs, after: after ?? (() => undefined) });
    this.#waitingBytes += bytes?.length ?? 0;
    this.update();
  }

  #isDue({ dueMs }: Waiting): boolean {
    const waitMs = dueMs - performance.now();
    if (waitMs <= 0) return true;
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.update();
    }, Math.ceil(waitMs));
    return false;
  }

  #throttle(): void {
    const { from } = this.#options;
    if (this.#waitingBytes > WAITING_BYTES_MAX) from.pause();
    else if (from.isPaused()) from.resume();
  }
}
