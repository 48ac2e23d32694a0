/**
 * The bytes of a journal, big-endian: a header, and records behind each other.
 *
 *    0 u8[8]  magic        "vmferryJ"
 *    8 u32    version      of this layout: 1
 *   12 u32    role         1 source, 2 dest
 *   16 u64    firstSeq     of the first record; no number is used twice in an incarnation
 *   24 u8[16] incarnation  a UUID, made with the journal and kept for ever
 *   40 u8[16] uuid         of the guest
 *   56 u8[64] guest        its name, ASCII, NUL behind it
 *  120 u32    crc          CRC-32 over everything before
 *
 *    0 u16    mark         "JR"
 *    2 u8     version      of the payload's schema
 *    3 u8     type         of the record
 *    4 u32    payloadBytes
 *    8 u64    seq          the one before plus 1
 *   16 u32    prevCrc      `crc` of the record before, of the header for the first one
 *   20 u32    crc          CRC-32 over bytes 0 to 20 and the payload
 *   24 u32    headCrc      CRC-32 over bytes 0 to 24: where the record ends can be relied on
 *   28 …      payload      JSON
 *
 * A record begins and ends with a byte that is not zero, and has no 512 zero bytes in a row: a disk
 * sector that reads as zeros was not written, whatever part of the record it held.
 */
import { crc32 } from "node:zlib";
import { assert } from "@vmferry/core";
import type { MigrationRole } from "@vmferry/protocol";
import type { EncodedRecord } from "./journal-record.ts";

export const JOURNAL_VERSION = 1;
export const HEADER_BYTES = 124;
export const RECORD_HEAD_BYTES = 28;
export const PAYLOAD_BYTES_MAX = 64 * 1024;
export const RECORD_BYTES_MAX = RECORD_HEAD_BYTES + PAYLOAD_BYTES_MAX;
/** Some 50,000 records, where compaction leaves a few hundred. */
export const JOURNAL_BYTES_MAX = 16 * 2 ** 20;

export interface JournalIdentity<R extends MigrationRole = MigrationRole> {
  readonly role: R;
  /** The guest's name. */
  readonly guest: string;
  readonly uuid: string;
}

export interface JournalHeader extends JournalIdentity {
  readonly incarnation: string;
  readonly firstSeq: number;
}

export type HeaderReading =
  | { readonly kind: "header"; readonly header: JournalHeader; readonly crc: number }
  | { readonly kind: "too-new"; readonly version: number }
  | { readonly kind: "damaged" };

/** How a record hangs on the one before. */
export interface ChainLink {
  readonly seq: number;
  readonly prevCrc: number;
}

export interface RecordHead extends ChainLink {
  readonly version: number;
  readonly type: number;
  readonly payloadBytes: number;
  readonly crc: number;
}

const MAGIC = Buffer.from("vmferryJ", "latin1");
const MARK = 0x4a52;
const ROLE_NUMBERS: Readonly<Record<MigrationRole, number>> = { source: 1, dest: 2 };
const INCARNATION_AT = 24;
const UUID_AT = 40;
const GUEST_AT = 56;
const HEADER_CRC_AT = 120;
const CRC_AT = 20;
const HEAD_CRC_AT = 24;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const GUEST = /^[\x21-\x7e]{1,64}$/;

export function encodeHeader(header: JournalHeader): Buffer {
  const { role, guest, uuid, incarnation, firstSeq } = header;
  assert(UUID.test(uuid) && UUID.test(incarnation), "a guest's id and an incarnation are UUIDs");
  assert(GUEST.test(guest), "a guest's name is 1 to 64 printable characters");
  assert(Number.isSafeInteger(firstSeq) && firstSeq > 0, "records are counted from 1");
  const bytes = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(bytes);
  bytes.writeUInt32BE(JOURNAL_VERSION, 8);
  bytes.writeUInt32BE(ROLE_NUMBERS[role], 12);
  bytes.writeBigUInt64BE(BigInt(firstSeq), 16);
  bytes.write(incarnation.replaceAll("-", ""), INCARNATION_AT, "hex");
  bytes.write(uuid.replaceAll("-", ""), UUID_AT, "hex");
  bytes.write(guest, GUEST_AT, "latin1");
  bytes.writeUInt32BE(crc32(bytes.subarray(0, HEADER_CRC_AT)), HEADER_CRC_AT);
  return bytes;
}

/** Of at least `HEADER_BYTES`, or it is damaged. */
export function decodeHeader(bytes: Buffer): HeaderReading {
  const damaged: HeaderReading = { kind: "damaged" };
  if (bytes.length < HEADER_BYTES || !bytes.subarray(0, 8).equals(MAGIC)) return damaged;
  const version = bytes.readUInt32BE(8);
  if (version > JOURNAL_VERSION) return { kind: "too-new", version };
  const crc = bytes.readUInt32BE(HEADER_CRC_AT);
  if (version === 0 || crc32(bytes.subarray(0, HEADER_CRC_AT)) !== crc) return damaged;
  const role = roleOf(bytes.readUInt32BE(12));
  const guest = bytes.toString("latin1", GUEST_AT, HEADER_CRC_AT).replace(/\0+$/, "");
  const firstSeq = Number(bytes.readBigUInt64BE(16));
  if (role === null || !GUEST.test(guest)) return damaged;
  if (!Number.isSafeInteger(firstSeq) || firstSeq === 0) return damaged;
  const incarnation = formatUuid(bytes.subarray(INCARNATION_AT, UUID_AT));
  const uuid = formatUuid(bytes.subarray(UUID_AT, GUEST_AT));
  return { kind: "header", header: { role, guest, uuid, incarnation, firstSeq }, crc };
}

export function encodeFrame({ version, type, payload }: EncodedRecord, link: ChainLink): Buffer {
  assert(payload.length <= PAYLOAD_BYTES_MAX, "a record stays within its limit");
  assert(payload.length > 0 && !payload.includes(0), "a payload is text, and not empty");
  assert(Number.isSafeInteger(link.seq) && link.seq > 0, "records are counted from 1");
  const bytes = Buffer.alloc(RECORD_HEAD_BYTES + payload.length);
  bytes.writeUInt16BE(MARK, 0);
  bytes.writeUInt8(version, 2);
  bytes.writeUInt8(type, 3);
  bytes.writeUInt32BE(payload.length, 4);
  bytes.writeBigUInt64BE(BigInt(link.seq), 8);
  bytes.writeUInt32BE(link.prevCrc, 16);
  bytes.set(payload, RECORD_HEAD_BYTES);
  bytes.writeUInt32BE(contentCrc(bytes), CRC_AT);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, HEAD_CRC_AT)), HEAD_CRC_AT);
  return bytes;
}

/** What `prevCrc` of the next record is. */
export function frameCrc(frame: Buffer): number {
  return frame.readUInt32BE(CRC_AT);
}

/** Null where no head of a record is at the beginning of `bytes`. */
export function decodeHead(bytes: Buffer): RecordHead | null {
  if (bytes.length < RECORD_HEAD_BYTES || bytes.readUInt16BE(0) !== MARK) return null;
  if (crc32(bytes.subarray(0, HEAD_CRC_AT)) !== bytes.readUInt32BE(HEAD_CRC_AT)) return null;
  const payloadBytes = bytes.readUInt32BE(4);
  const seq = Number(bytes.readBigUInt64BE(8));
  if (payloadBytes === 0 || payloadBytes > PAYLOAD_BYTES_MAX) return null;
  if (!Number.isSafeInteger(seq)) return null;
  const [version, type] = [bytes.readUInt8(2), bytes.readUInt8(3)];
  return {
    version,
    type,
    payloadBytes,
    seq,
    prevCrc: bytes.readUInt32BE(16),
    crc: frameCrc(bytes),
  };
}

/** A view. Null where the payload is not all there, or not the one that the head is of. */
export function decodePayload(bytes: Buffer, head: RecordHead): Buffer | null {
  const frame = bytes.subarray(0, RECORD_HEAD_BYTES + head.payloadBytes);
  if (frame.length < RECORD_HEAD_BYTES + head.payloadBytes) return null;
  return contentCrc(frame) === head.crc ? frame.subarray(RECORD_HEAD_BYTES) : null;
}

function contentCrc(frame: Buffer): number {
  return crc32(frame.subarray(RECORD_HEAD_BYTES), crc32(frame.subarray(0, CRC_AT)));
}

function roleOf(number: number): MigrationRole | null {
  const roles = Object.keys(ROLE_NUMBERS) as MigrationRole[];
  return roles.find((role) => ROLE_NUMBERS[role] === number) ?? null;
}

function formatUuid(bytes: Buffer): string {
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
