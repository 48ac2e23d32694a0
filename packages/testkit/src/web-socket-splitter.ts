// One direction of a WebSocket connection, cut into what may be told apart from outside: the HTTP
// handshake first, then frame by frame. The agents send every message as one frame, so a data frame
// is a message.

import { assert } from "@vmferry/core";

export const OpCode = { TEXT: 1, BINARY: 2, CLOSE: 8, PING: 9, PONG: 10 } as const;

export type WirePiece =
  | { readonly kind: "handshake"; readonly bytes: Buffer }
  | {
      readonly kind: "frame";
      readonly opcode: number;
      /** The frame as it is on the wire, header included. */
      readonly bytes: Buffer;
      /** Where the payload begins in `bytes`. */
      readonly payloadOffset: number;
      readonly mask: Buffer | null;
    };

const HANDSHAKE_END = "\r\n\r\n";
const HANDSHAKE_BYTES_MAX = 64 * 1024;
/** Beyond anything that an agent sends: a splitter that lost its place must not eat memory. */
const FRAME_BYTES_MAX = 16 * 1024 * 1024;
const MASK_BYTES = 4;

export class WebSocketSplitter {
  readonly #onPiece: (piece: WirePiece) => void;
  #chunks: Buffer[] = [];
  #bufferedBytes = 0;
  #open = false;

  constructor(onPiece: (piece: WirePiece) => void) {
    this.#onPiece = onPiece;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bufferedBytes += chunk.length;
    while (this.#takePiece());
  }

  #takePiece(): boolean {
    return this.#open ? this.#takeFrame() : this.#takeHandshake();
  }

  #takeHandshake(): boolean {
    const all = this.#joined(this.#bufferedBytes);
    const end = all.indexOf(HANDSHAKE_END);
    assert(end >= 0 || all.length < HANDSHAKE_BYTES_MAX, "a handshake is short");
    if (end < 0) return false;
    this.#open = true;
    this.#onPiece({ kind: "handshake", bytes: this.#take(end + HANDSHAKE_END.length) });
    return true;
  }

  #takeFrame(): boolean {
    if (this.#bufferedBytes < 2) return false;
    const head = this.#joined(Math.min(this.#bufferedBytes, 14));
    const shape = frameShape(head);
    if (shape === null || this.#bufferedBytes < shape.bytes) return false;
    assert(shape.bytes <= FRAME_BYTES_MAX, "the agents' frames are short");
    const { opcode, payloadOffset, masked } = shape;
    const bytes = this.#take(shape.bytes);
    const mask = masked ? bytes.subarray(payloadOffset - MASK_BYTES, payloadOffset) : null;
    this.#onPiece({ kind: "frame", opcode, bytes, payloadOffset, mask });
    return true;
  }

  /** The first `count` bytes in one piece; they stay where they are. */
  #joined(count: number): Buffer {
    const first = this.#chunks[0];
    if (first === undefined) return Buffer.alloc(0);
    if (first.length >= count) return first;
    this.#chunks = [Buffer.concat(this.#chunks, this.#bufferedBytes)];
    return this.#chunks[0]!;
  }

  #take(count: number): Buffer {
    const joined = this.#joined(count);
    if (joined.length === count) this.#chunks.shift();
    else this.#chunks[0] = joined.subarray(count);
    this.#bufferedBytes -= count;
    return joined.subarray(0, count);
  }
}

/** The payload as its sender meant it. */
export function payloadOf(frame: WirePiece & { readonly kind: "frame" }): Buffer {
  const payload = Buffer.from(frame.bytes.subarray(frame.payloadOffset));
  const { mask } = frame;
  if (mask !== null) for (let i = 0; i < payload.length; i++) payload[i]! ^= mask[i & 3]!;
  return payload;
}

/** One unfragmented binary frame; clients mask theirs, and a mask of zeros is one. */
export function binaryFrame(payload: Buffer, options: { readonly masked: boolean }): Buffer {
  const maskBit = options.masked ? 0x80 : 0;
  const mask = Buffer.alloc(options.masked ? MASK_BYTES : 0);
  if (payload.length < 126) {
    return Buffer.concat([Buffer.from([0x82, maskBit | payload.length]), mask, payload]);
  }
  assert(payload.length < 65_536, "only control messages are put into frames here");
  const head = Buffer.from([0x82, maskBit | 126, payload.length >> 8, payload.length & 0xff]);
  return Buffer.concat([head, mask, payload]);
}

/** Null while the header is not complete (RFC 6455 5.2). */
function frameShape(head: Buffer): {
  readonly opcode: number;
  readonly masked: boolean;
  readonly payloadOffset: number;
  readonly bytes: number;
} | null {
  const opcode = head[0]! & 0x0f;
  const masked = head[1]! >= 0x80;
  const short = head[1]! & 0x7f;
  const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
  const payloadOffset = 2 + lengthBytes + (masked ? MASK_BYTES : 0);
  if (head.length < 2 + lengthBytes) return null;
  const payloadBytes =
    lengthBytes === 0
      ? short
      : lengthBytes === 2
        ? head.readUInt16BE(2)
        : Number(head.readBigUInt64BE(2));
  return { opcode, masked, payloadOffset, bytes: payloadOffset + payloadBytes };
}
