/**
 * Option haggling of the fixed newstyle handshake, bytes <-> values, big-endian:
 *
 *   greeting       u64 "NBDMAGIC" · u64 "IHAVEOPT" · u16 handshake flags
 *   client         u32 client flags
 *   option         u64 "IHAVEOPT" · u32 option · u32 length · data
 *   option reply   u64 magic · u32 option · u32 type · u32 length · data
 *
 * The text of an error reply is a constant: a client's bytes never come back to it.
 */
import { ByteReader } from "@vmferry/core";
import {
  GREETING_MAGIC,
  HandshakeFlag,
  InfoType,
  OPTION_MAGIC,
  OPTION_REPLY_MAGIC,
  OptionError,
  OptionReply,
} from "./nbd-constants.ts";
import { violation } from "./nbd-error.ts";
import { NAME_BYTES_MAX, PAYLOAD_BYTES_MAX, PREFERRED_BLOCK_BYTES } from "./nbd-limits.ts";

const EXPORT_NAME_PADDING_BYTES = 124;

export interface OptionHeader {
  readonly option: number;
  readonly length: number;
}

/** Data of INFO and GO. */
export interface InfoRequest {
  readonly name: Uint8Array;
  readonly infoTypes: readonly number[];
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export interface MetaContextRequest {
  readonly name: Uint8Array;
  readonly queries: readonly string[];
}

export function encodeGreeting(): Buffer {
  const bytes = Buffer.alloc(18);
  bytes.writeBigUInt64BE(GREETING_MAGIC, 0);
  bytes.writeBigUInt64BE(OPTION_MAGIC, 8);
  bytes.writeUInt16BE(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES, 16);
  return bytes;
}

/** Refuses what is not fixed newstyle, and flags that the greeting did not offer. */
export function decodeClientFlags(bytes: Uint8Array): { readonly noZeroes: boolean } {
  const reader = new ByteReader(bytes);
  const flags = reader.u32("client flags");
  reader.end();
  switch (flags) {
    case HandshakeFlag.FIXED_NEWSTYLE:
      return { noZeroes: false };
    case HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES:
      return { noZeroes: true };
    default:
      throw violation("client flags");
  }
}

export function decodeOptionHeader(bytes: Uint8Array): OptionHeader {
  const reader = new ByteReader(bytes);
  if (reader.u64("magic") !== OPTION_MAGIC) throw violation("option magic");
  const header = { option: reader.u32("option"), length: reader.u32("length") };
  reader.end();
  return header;
}

export function decodeInfoRequest(data: Uint8Array): InfoRequest {
  const reader = new ByteReader(data);
  const name = readString(reader, "export name");
  const count = reader.u16("information requests");
  const infoTypes: number[] = [];
  for (let i = 0; i < count; i++) infoTypes.push(reader.u16("information type"));
  reader.end();
  return { name, infoTypes };
}

export function decodeMetaContextRequest(data: Uint8Array): MetaContextRequest {
  const reader = new ByteReader(data);
  const name = readString(reader, "export name");
  const count = reader.u32("queries");
  const queries: string[] = [];
  // A count that the data does not bear out ends at the first query that is missing.
  for (let i = 0; i < count; i++) {
    // Bytes that are not UTF-8 become U+FFFD, which no context's name contains.
    queries.push(Buffer.from(readString(reader, "query")).toString("utf8"));
  }
  reader.end();
  return { name, queries };
}

export function encodeOptionReply(option: number, type: number, data = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.alloc(20 + data.length);
  bytes.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(type, 12);
  bytes.writeUInt32BE(data.length, 16);
  data.copy(bytes, 20);
  return bytes;
}

export function encodeOptionError(option: number, error: OptionError): Buffer {
  return encodeOptionReply(option, error, Buffer.from(optionErrorText(error)));
}

export function encodeServerReply(option: number, name: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(name.length);
  return encodeOptionReply(option, OptionReply.SERVER, Buffer.concat([length, name]));
}

export function encodeExportInfo(
  option: number,
  { sizeBytes, flags }: { readonly sizeBytes: number; readonly flags: number },
): Buffer {
  const data = Buffer.alloc(12);
  data.writeUInt16BE(InfoType.EXPORT, 0);
  data.writeBigUInt64BE(BigInt(sizeBytes), 2);
  data.writeUInt16BE(flags, 10);
  return encodeOptionReply(option, OptionReply.INFO, data);
}

export function encodeNameInfo(option: number, name: Buffer): Buffer {
  const type = Buffer.alloc(2);
  type.writeUInt16BE(InfoType.NAME);
  return encodeOptionReply(option, OptionReply.INFO, Buffer.concat([type, name]));
}

export function encodeBlockSizeInfo(option: number): Buffer {
  const data = Buffer.alloc(14);
  data.writeUInt16BE(InfoType.BLOCK_SIZE, 0);
  data.writeUInt32BE(1, 2);
  data.writeUInt32BE(PREFERRED_BLOCK_BYTES, 6);
  data.writeUInt32BE(PAYLOAD_BYTES_MAX, 10);
  return encodeOptionReply(option, OptionReply.INFO, data);
}

export function encodeMetaContextReply(
  option: number,
  { id, name }: { readonly id: number; readonly name: string },
): Buffer {
  const idBytes = Buffer.alloc(4);
  idBytes.writeUInt32BE(id);
  const data = Buffer.concat([idBytes, Buffer.from(name)]);
  return encodeOptionReply(option, OptionReply.META_CONTEXT, data);
}

/** What answers EXPORT_NAME, which has no option reply. */
export function encodeExportNameReply(
  { sizeBytes, flags }: { readonly sizeBytes: number; readonly flags: number },
  noZeroes: boolean,
): Buffer {
  const bytes = Buffer.alloc(noZeroes ? 10 : 10 + EXPORT_NAME_PADDING_BYTES);
  bytes.writeBigUInt64BE(BigInt(sizeBytes), 0);
  bytes.writeUInt16BE(flags, 8);
  return bytes;
}

function readString(reader: ByteReader, field: string): Uint8Array {
  const length = reader.u32(`length of ${field}`);
  if (length > NAME_BYTES_MAX) throw violation(`length of ${field}`);
  return reader.bytes(field, length);
}

function optionErrorText(error: OptionError): string {
  switch (error) {
    case OptionError.UNSUP:
      return "option not supported";
    case OptionError.INVALID:
      return "option not valid";
    case OptionError.UNKNOWN:
      return "no such export";
  }
}
