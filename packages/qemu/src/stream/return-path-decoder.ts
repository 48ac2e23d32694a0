import { assert } from "@vmferry/core";

import { blockIndexOf, pageRequestOf, receivedBitmapBytes } from "./page-request.ts";
import type { RamBlock } from "./ram-block.ts";
import {
  BITMAP_END_HIGH,
  BITMAP_END_LOW,
  RETURN_PATH_PAYLOAD_BYTES_MAX,
  RETURN_PATH_TYPE,
  ReturnPathError,
  type ReturnPathMessage,
} from "./return-path-message.ts";
import { NAME_ENCODING, PAGE_BYTES } from "./stream-format.ts";

/** [name, least payload, whether a block name makes it longer], by type. */
const MESSAGES: readonly (readonly [string, number, boolean])[] = [
  ["invalid", 0, false],
  ["SHUT", 4, false],
  ["PONG", 4, false],
  ["REQ_PAGES_ID", 13, true],
  ["REQ_PAGES", 12, false],
  ["RECV_BITMAP", 1, true],
  ["RESUME_ACK", 4, false],
  ["SWITCHOVER_ACK", 0, false],
];

const HEADER_BYTES = 4;
const BITMAP_SIZE_BYTES = 8;
const BITMAP_END_BYTES = 8;

type Stage = "header" | "payload" | "bitmap-size" | "bitmap" | "bitmap-end";

export interface ReturnPathLimits {
  readonly bitmapBytesMax: number;
  /**
   * The block list as far as it is known. With it a request has to be for a host page of a block,
   * and a bitmap as long as its block has it; without it nobody may believe either.
   */
  readonly blocks?: () => readonly RamBlock[];
}

/** Decodes what a destination QEMU answers; `onMessage` is called while `push` runs. */
export class ReturnPathDecoder {
  readonly #onMessage: (message: ReturnPathMessage) => void;
  readonly #limits: ReturnPathLimits;
  /** Header, payload, size and end mark each fit here; a bitmap gets a buffer of its own. */
  readonly #small = Buffer.alloc(RETURN_PATH_PAYLOAD_BYTES_MAX);
  #into: Buffer = this.#small;
  #filledBytes = 0;
  #neededBytes = HEADER_BYTES;
  #stage: Stage = "header";
  #type = 0;
  /** The block of the last request, which a request without a name means. */
  #requestedBlock: string | null = null;
  #bitmapBlock = "";
  #bitmap: Buffer = this.#small;
  #shut = false;
  #failure: { readonly cause: unknown } | null = null;

  constructor(onMessage: (message: ReturnPathMessage) => void, limits: ReturnPathLimits) {
    this.#onMessage = onMessage;
    this.#limits = limits;
  }

  push(chunk: Buffer): void {
    if (this.#failure !== null) throw this.#failure.cause;
    try {
      let at = 0;
      while (at < chunk.length) at = this.#feed(chunk, at);
    } catch (cause) {
      this.#failure = { cause };
      throw cause;
    }
  }

  /** The return path was closed: fine between two messages, whether SHUT came or not. */
  end(): void {
    if (this.#failure !== null) throw this.#failure.cause;
    if (this.#stage === "header" && this.#filledBytes === 0) return;
    throw new ReturnPathError("the return path was closed inside a message", {
      code: "return-path-truncated",
    });
  }

  #feed(chunk: Buffer, at: number): number {
    if (this.#shut) {
      throw new ReturnPathError("something follows SHUT on the return path", {
        code: "return-path-after-shut",
      });
    }
    const next = Math.min(chunk.length, at + this.#neededBytes - this.#filledBytes);
    chunk.copy(this.#into, this.#filledBytes, at, next);
    this.#filledBytes += next - at;
    while (this.#filledBytes === this.#neededBytes) this.#complete();
    return next;
  }

  #want(stage: Stage, into: Buffer, neededBytes: number): void {
    this.#stage = stage;
    this.#into = into;
    this.#filledBytes = 0;
    this.#neededBytes = neededBytes;
  }

  #complete(): void {
    const bytes = this.#into;
    switch (this.#stage) {
      case "header":
        this.#type = bytes.readUInt16BE(0);
        this.#want("payload", this.#small, checkHeader(this.#type, bytes.readUInt16BE(2)));
        return;
      case "payload":
        this.#payload(bytes.subarray(0, this.#neededBytes));
        return;
      case "bitmap-size":
        this.#bitmapSize(bytes.readUInt32BE(0) * 0x100000000 + bytes.readUInt32BE(4));
        return;
      case "bitmap":
        this.#bitmap = bytes;
        this.#want("bitmap-end", this.#small, BITMAP_END_BYTES);
        return;
      case "bitmap-end":
        if (bytes.readUInt32BE(0) !== BITMAP_END_HIGH || bytes.readUInt32BE(4) !== BITMAP_END_LOW) {
          throw badBitmap("the mark behind it is wrong");
        }
        this.#report({ type: "recv-bitmap", block: this.#bitmapBlock, bitmap: this.#bitmap });
    }
  }

  #payload(payload: Buffer): void {
    switch (this.#type) {
      case RETURN_PATH_TYPE.SHUT:
        this.#shut = true;
        this.#report({ type: "shut", value: payload.readUInt32BE(0) });
        return;
      case RETURN_PATH_TYPE.PONG:
        this.#report({ type: "pong", value: payload.readUInt32BE(0) });
        return;
      case RETURN_PATH_TYPE.REQ_PAGES_ID:
        this.#requestedBlock = readName(payload, 12);
        this.#reqPages(payload, this.#requestedBlock);
        return;
      case RETURN_PATH_TYPE.REQ_PAGES:
        this.#reqPages(payload, this.#requestedBlock);
        return;
      case RETURN_PATH_TYPE.RECV_BITMAP:
        this.#bitmapBlock = readName(payload, 0);
        this.#want("bitmap-size", this.#small, BITMAP_SIZE_BYTES);
        return;
      case RETURN_PATH_TYPE.RESUME_ACK:
        this.#report({ type: "resume-ack", value: payload.readUInt32BE(0) });
        return;
      default:
        assert(
          this.#type === RETURN_PATH_TYPE.SWITCHOVER_ACK,
          "the header's check left no other type",
        );
        this.#report({ type: "switchover-ack" });
    }
  }

  #reqPages(payload: Buffer, block: string | null): void {
    const startBytes = payload.readUInt32BE(0) * 0x100000000 + payload.readUInt32BE(4);
    const lengthBytes = payload.readUInt32BE(8);
    if (block === null) {
      throw new ReturnPathError("the first request for pages names no block", {
        code: "return-path-no-block",
      });
    }
    checkLimit("start", startBytes, Number.MAX_SAFE_INTEGER - lengthBytes);
    checkAlignment("start", startBytes);
    checkAlignment("length", lengthBytes === 0 ? 1 : lengthBytes);
    const request = { type: "req-pages", block, startBytes, lengthBytes } as const;
    const { blocks } = this.#limits;
    if (blocks !== undefined) pageRequestOf(request, blocks());
    this.#report(request);
  }

  #bitmapSize(sizeBytes: number): void {
    checkLimit("bitmap", sizeBytes, this.#limits.bitmapBytesMax);
    if (sizeBytes === 0 || sizeBytes % 8 !== 0) throw badBitmap("its size is not whole words");
    const blocks = this.#limits.blocks?.();
    if (blocks !== undefined) {
      const block = blocks[blockIndexOf(this.#bitmapBlock, blocks)]!;
      if (sizeBytes !== receivedBitmapBytes(block)) throw badBitmap("its block has another size");
    }
    this.#want("bitmap", Buffer.alloc(sizeBytes), sizeBytes);
  }

  /** The state is that of the next message before the receiver is told: it may throw. */
  #report(message: ReturnPathMessage): void {
    this.#want("header", this.#small, HEADER_BYTES);
    this.#onMessage(message);
  }
}

/** Refuses an unknown type and an impossible length, and returns the length. */
function checkHeader(type: number, payloadBytes: number): number {
  checkLimit("payload", payloadBytes, RETURN_PATH_PAYLOAD_BYTES_MAX);
  const known = MESSAGES[type];
  if (type === 0 || known === undefined) {
    throw new ReturnPathError(`unknown message type ${type} on the return path`, {
      code: "return-path-unknown-type",
      type,
    });
  }
  const [name, leastBytes, isNamed] = known;
  if (isNamed ? payloadBytes <= leastBytes : payloadBytes !== leastBytes) {
    throw badLength(name, payloadBytes);
  }
  return payloadBytes;
}

/** The str8 that ends a payload. */
function readName(payload: Buffer, at: number): string {
  if (payload[at] !== payload.length - at - 1) throw badLength("block name", payload.length);
  return payload.toString(NAME_ENCODING, at + 1);
}

function checkLimit(field: string, value: number, limit: number): void {
  if (value <= limit) return;
  throw new ReturnPathError(`${field} of ${value} on the return path, over ${limit}`, {
    code: "return-path-over-limit",
    field,
    value,
    limit,
  });
}

function checkAlignment(field: string, value: number): void {
  if (value % PAGE_BYTES === 0) return;
  throw new ReturnPathError(`a request whose ${field} of ${value} is not whole pages`, {
    code: "return-path-unaligned",
    field,
    value,
  });
}

function badLength(message: string, payloadBytes: number): ReturnPathError {
  return new ReturnPathError(`${message} with a payload of ${payloadBytes} bytes`, {
    code: "return-path-bad-length",
    message,
    payloadBytes,
  });
}

function badBitmap(reason: string): ReturnPathError {
  return new ReturnPathError(`the bitmap of received pages: ${reason}`, {
    code: "return-path-bad-bitmap",
    reason,
  });
}
