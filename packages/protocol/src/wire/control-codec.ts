/**
 * Control messages as bytes. Order of the checks: size, token scan (no extension types, depth,
 * counts), unpack, schema. msgpackr by itself would accept record definitions, regular expressions
 * and more from the peer, hence the scan before it.
 */
import type * as msgpackr from "msgpackr";
import * as plainMsgpackr from "msgpackr/pack";
import { Compile } from "typebox/compile";
import { assert } from "@vmferry/core";
import { ControlSchemas, type ControlKind, type ControlMessage } from "./control-messages.ts";
import {
  CONTROL_BYTES_MAX,
  CONTROL_COUNT_MAX,
  CONTROL_DEPTH_MAX,
  RETURN_PATH_BYTES_MAX,
  TEXT_LENGTH_MAX,
} from "./limits.ts";
import { violation } from "./protocol-error.ts";

/**
 * This entry of the package is plain JavaScript, while the main one hands the peer's bytes to a
 * native string reader. Its own type file names nothing, hence the other's types.
 */
const { Packr, Unpackr } = plainMsgpackr as unknown as typeof msgpackr;
const packr = new Packr({ useRecords: false, variableMapSize: true });
const unpackr = new Unpackr({
  useRecords: false,
  mapsAsObjects: true,
  structuredClone: false,
  int64AsType: "number",
});

const validators = new Map(
  Object.entries(ControlSchemas).map(([kind, schema]) => [kind, Compile(schema)]),
);

/** A `text` that is too long is cut: it is for people, and the message around it has to arrive. */
export function encodeControl(message: ControlMessage): Buffer {
  const sent = "text" in message ? { ...message, text: clipped(message.text) } : message;
  assert(isWellFormed(sent), `a ${message.kind} that is sent would be accepted`);
  // A copy: a view would keep the packer's whole arena for as long as the message is queued.
  const bytes = Buffer.from(packr.pack(sent));
  assert(bytes.length <= CONTROL_BYTES_MAX, `${message.kind} fits a control message`);
  return bytes;
}

/**
 * @throws ProtocolError when the bytes are anything but one well-formed control message.
 */
export function decodeControl(bytes: Uint8Array): ControlMessage {
  if (bytes.byteLength > CONTROL_BYTES_MAX) throw violation("control message too large");
  scanMsgpack(bytes);
  let value: unknown;
  try {
    value = unpackr.unpack(bytes);
  } catch (error) {
    throw violation("control message is not msgpack", error);
  }
  return validated(value);
}

function validated(value: unknown): ControlMessage {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, "kind")) {
    throw violation("control message without a kind");
  }
  const { kind } = value as { kind: unknown };
  if (typeof kind !== "string" || !validators.has(kind)) {
    throw violation("control message of an unknown kind");
  }
  if (!isWellFormed(value as { kind: string })) {
    throw violation(`control message ${kind as ControlKind} malformed`);
  }
  return value as ControlMessage;
}

function isWellFormed(message: { readonly kind: string }): boolean {
  if (validators.get(message.kind)?.Check(message) !== true) return false;
  if (message.kind !== "return-path") return true;
  // The schema has no type for bytes.
  const { bytes } = message as unknown as { readonly bytes: unknown };
  return bytes instanceof Uint8Array && bytes.byteLength <= RETURN_PATH_BYTES_MAX;
}

/** Half a surrogate pair has no UTF-8: it would arrive as up to three characters, and may be too many. */
function clipped(text: string): string {
  return text.slice(0, TEXT_LENGTH_MAX).toWellFormed();
}

/** Walks the tokens of one value without building it; refuses what the protocol never uses. */
export function scanMsgpack(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = walk(view, 0, 1);
  if (end !== bytes.byteLength) throw violation("bytes after the control message");
}

function walk(view: DataView, offset: number, depth: number): number {
  if (depth > CONTROL_DEPTH_MAX) throw violation("control message nested too deep");
  const token = at(view, offset, 1).getUint8(offset);
  let next = offset + 1;
  const size = fixedSize(token);
  if (size !== null) return skip(view, next, size);
  let count: number;
  let perElement = 1;
  if (token >= 0x80 && token <= 0x8f) {
    count = token & 0x0f;
    perElement = 2;
  } else if (token >= 0x90 && token <= 0x9f) count = token & 0x0f;
  else if (token >= 0xa0 && token <= 0xbf) return skip(view, next, token & 0x1f);
  else if (token === 0xc4 || token === 0xd9) {
    return skip(view, next + 1, at(view, next, 1).getUint8(next));
  } else if (token === 0xc5 || token === 0xda) {
    return skip(view, next + 2, at(view, next, 2).getUint16(next));
  } else if (token === 0xc6 || token === 0xdb) {
    return skip(view, next + 4, at(view, next, 4).getUint32(next));
  } else if (token === 0xdc || token === 0xde) {
    count = at(view, next, 2).getUint16(next);
    if (token === 0xde) perElement = 2;
    next += 2;
  } else throw violation("control message with a token that is not allowed");
  if (count > CONTROL_COUNT_MAX) throw violation("control message with too many elements");
  for (let i = 0; i < count * perElement; i++) next = walk(view, next, depth + 1);
  return next;
}

/** Bytes after the token of a scalar; null for everything else. */
function fixedSize(token: number): number | null {
  if (token <= 0x7f || token >= 0xe0) return 0;
  switch (token) {
    case 0xc0:
    case 0xc2:
    case 0xc3:
      return 0;
    case 0xcc:
    case 0xd0:
      return 1;
    case 0xcd:
    case 0xd1:
      return 2;
    case 0xca:
    case 0xce:
    case 0xd2:
      return 4;
    case 0xcb:
    case 0xcf:
    case 0xd3:
      return 8;
    default:
      return null;
  }
}

function at(view: DataView, offset: number, need: number): DataView {
  if (offset + need > view.byteLength) throw violation("control message truncated");
  return view;
}

function skip(view: DataView, offset: number, length: number): number {
  at(view, offset, length);
  return offset + length;
}
