import { describe, expect, it } from "vitest";
import {
  binaryFrame,
  OpCode,
  payloadOf,
  WebSocketSplitter,
  type WirePiece,
} from "./web-socket-splitter.ts";

const HANDSHAKE = Buffer.from("GET /v1/peer/bulk HTTP/1.1\r\nHost: a\r\n\r\n");
/** "Hello" as a client sends it: RFC 6455 5.7. */
const MASKED_HELLO = Buffer.from("818537fa213d7f9f4d5158", "hex");

/** Everything that comes out when the bytes come in pieces of this size. */
function split(bytes: Buffer, pieceBytes: number): WirePiece[] {
  const pieces: WirePiece[] = [];
  const splitter = new WebSocketSplitter((piece) => pieces.push(piece));
  for (let start = 0; start < bytes.length; start += pieceBytes) {
    splitter.push(bytes.subarray(start, start + pieceBytes));
  }
  return pieces;
}

function frames(pieces: readonly WirePiece[]): (WirePiece & { kind: "frame" })[] {
  return pieces.filter((piece) => piece.kind === "frame");
}

/** A frame with a length of 64 bits, as bulk frames have it. */
function longFrame(payload: Buffer): Buffer {
  const head = Buffer.alloc(10);
  head[0] = 0x82;
  head[1] = 127;
  head.writeBigUInt64BE(BigInt(payload.length), 2);
  return Buffer.concat([head, payload]);
}

describe("WebSocketSplitter", () => {
  it("gives back every byte, wherever the stream was cut", () => {
    const stream = Buffer.concat([
      HANDSHAKE,
      MASKED_HELLO,
      binaryFrame(Buffer.alloc(125, 1), { masked: true }),
      binaryFrame(Buffer.alloc(126, 2), { masked: false }),
      binaryFrame(Buffer.alloc(0), { masked: false }),
      binaryFrame(Buffer.alloc(65_535, 3), { masked: true }),
      longFrame(Buffer.alloc(70_000, 4)),
    ]);
    for (const pieceBytes of [1, 2, 3, 7, 4096, stream.length]) {
      const pieces = split(stream, pieceBytes);
      expect(pieces.map(({ kind }) => kind)).toEqual([
        "handshake",
        ...Array.from({ length: 6 }, () => "frame"),
      ]);
      expect(Buffer.concat(pieces.map(({ bytes }) => bytes)).equals(stream)).toBe(true);
      const lengths = frames(pieces).map((frame) => payloadOf(frame).length);
      expect(lengths).toEqual([5, 125, 126, 0, 65_535, 70_000]);
    }
  });

  it("unmasks what a client sent, and leaves the frame as it is", () => {
    const [hello] = frames(split(Buffer.concat([HANDSHAKE, MASKED_HELLO]), 100));
    expect(hello!.opcode).toBe(OpCode.TEXT);
    expect(payloadOf(hello!).toString()).toBe("Hello");
    expect(hello!.bytes.equals(MASKED_HELLO)).toBe(true);
  });

  it("says nothing of a frame before its last byte is there", () => {
    const frame = binaryFrame(Buffer.from("payload"), { masked: true });
    const stream = Buffer.concat([HANDSHAKE, frame]);
    expect(split(stream.subarray(0, -1), 5)).toHaveLength(1);
    expect(split(stream, 5)).toHaveLength(2);
  });

  it("gives up on a handshake without an end", () => {
    expect(() => split(Buffer.alloc(100_000, "x"), 1000)).toThrow("a handshake is short");
  });
});
