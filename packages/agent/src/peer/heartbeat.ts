/** Pings of a WebSocket, which find a link that is half open: dead, and nobody has said so. */
import type { Clock } from "@vmferry/core";
import { limits } from "@vmferry/protocol";
import type { WebSocket } from "ws";

export interface HeartbeatOptions {
  readonly clock: Clock;
  /** Nothing was heard for `HEARTBEAT_LOST_MS`; null for a side that only makes itself heard. */
  readonly onSilent: (() => void) | null;
}

export class Heartbeat {
  readonly #socket: WebSocket;
  readonly #options: HeartbeatOptions;
  #cancelTimer: () => void = () => undefined;
  #heardMs: number;
  #pingMs = 0;
  #roundTripMs: number | null = null;

  constructor(socket: WebSocket, options: HeartbeatOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#heardMs = options.clock.nowMs();
    socket.on("ping", () => {
      this.heard();
    });
    socket.on("pong", () => {
      this.heard();
      const tookMs = this.#heardMs - this.#pingMs;
      this.#roundTripMs = Math.min(this.#roundTripMs ?? tookMs, tookMs);
    });
    socket.on("close", () => {
      this.stop();
    });
    this.#ping();
    this.#next();
  }

  /** The shortest round trip seen; 0 before the first. */
  get roundTripMs(): number {
    return this.#roundTripMs ?? 0;
  }

  /** The peer has sent something. */
  heard(): void {
    this.#heardMs = this.#options.clock.nowMs();
  }

  stop(): void {
    this.#cancelTimer();
  }

  #next(): void {
    const { clock, onSilent } = this.#options;
    this.#cancelTimer = clock.after(limits.HEARTBEAT_INTERVAL_MS, () => {
      if (onSilent !== null && clock.nowMs() - this.#heardMs > limits.HEARTBEAT_LOST_MS) {
        onSilent();
        return;
      }
      this.#ping();
      this.#next();
    });
  }

  #ping(): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    this.#pingMs = this.#options.clock.nowMs();
    this.#socket.ping();
  }
}
