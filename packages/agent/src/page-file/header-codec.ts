/**
 * The header of a page file: whose pages it holds. `docs/page-file.md` has the bytes.
 */
import { crc32 } from "node:zlib";
import { assert, ByteError, ByteReader } from "@vmferry/core";
import { KEY_ID_BYTES, SALT_BYTES, TAG_BYTES } from "./file-seal.ts";
import {
  ALIGNMENT_BYTES,
  HEADER_BYTES_MAX,
  NAME_BYTES_MAX,
  PAGE_BYTES,
  PAGE_FILE_VERSION,
  PAGES_MAX,
  RAM_BLOCKS_MAX,
} from "./page-file-limits.ts";

/** What is known of any header before it is read as a whole. */
export const HEADER_START_BYTES = 16;

const MAGIC = Buffer.from("vmferryP", "latin1");
const MIGRATION_ID = /^[0-9a-zA-Z-]{1,64}$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const UUID_BYTES = 16;
const SCOPE_NUMBERS: Readonly<Record<PageFileScope, number>> = { missing: 1, whole: 2 };
const CRC_BYTES = 4;
const END_BYTES = CRC_BYTES + TAG_BYTES;

/**
 * `missing`: a complete file holds what its writer still owed the reader. `whole`: it holds every
 * page of the guest.
 */
export type PageFileScope = "missing" | "whole";

export interface PageFileBlock {
  readonly name: string;
  /** A multiple of a page. */
  readonly lengthBytes: number;
}

/** Whose pages a file holds; pages are numbered through all blocks, in their order. */
export interface PageFileSubject {
  readonly scope: PageFileScope;
  readonly migrationId: string;
  readonly epoch: number;
  readonly guestName: string;
  /** 8-4-4-4-12 lower-case hex digits. */
  readonly uuid: string;
  readonly blocks: readonly PageFileBlock[];
}

export interface PageFileHeader extends PageFileSubject {
  readonly salt: Buffer;
  readonly keyId: Buffer;
}

export function pagesOf(blocks: readonly PageFileBlock[]): number {
  return blocks.reduce((pages, { lengthBytes }) => pages + lengthBytes / PAGE_BYTES, 0);
}

/** All of it but the tag, which is over these bytes. */
export function encodeHeader(header: PageFileHeader): Buffer {
  const { scope, migrationId, epoch, guestName, uuid, blocks, salt, keyId } = header;
  assert(isSubjectPossible(header), "a page file's header is within its limits");
  assert(salt.length === SALT_BYTES && keyId.length === KEY_ID_BYTES, "salt and key id are whole");
  const start = Buffer.alloc(HEADER_START_BYTES);
  MAGIC.copy(start);
  start.writeUInt32BE(PAGE_FILE_VERSION, 8);
  const fields = [
    u32(SCOPE_NUMBERS[scope]),
    u32(PAGE_BYTES),
    u64(epoch),
    u64(pagesOf(blocks)),
    Buffer.from(uuid.replaceAll("-", ""), "hex"),
    salt,
    keyId,
    text(migrationId),
    text(guestName),
    u32(blocks.length),
    ...blocks.flatMap(({ name, lengthBytes }) => [text(name), u64(lengthBytes)]),
  ];
  const fieldBytes = fields.reduce((bytes, field) => bytes + field.length, 0);
  const usedBytes = HEADER_START_BYTES + fieldBytes + END_BYTES;
  const headerBytes = Math.ceil(usedBytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  start.writeUInt32BE(headerBytes, 12);
  const padding = Buffer.alloc(headerBytes - usedBytes);
  const checked = Buffer.concat([start, ...fields, padding]);
  return Buffer.concat([checked, u32(crc32(checked))]);
}

/** What the first bytes say: how long the header is, with its tag; or why it is none. */
export function readHeaderStart(
  start: Buffer,
): { readonly headerBytes: number } | { readonly version: number } | null {
  if (start.length < HEADER_START_BYTES || !start.subarray(0, MAGIC.length).equals(MAGIC)) {
    return null;
  }
  const version = start.readUInt32BE(8);
  if (version > PAGE_FILE_VERSION) return { version };
  const headerBytes = start.readUInt32BE(12);
  const isPossible =
    version === PAGE_FILE_VERSION &&
    headerBytes > HEADER_START_BYTES + END_BYTES &&
    headerBytes <= HEADER_BYTES_MAX &&
    headerBytes % ALIGNMENT_BYTES === 0;
  return isPossible ? { headerBytes } : null;
}

/** Null for what is damaged. `bytes` is the whole header without its tag. */
export function decodeHeader(bytes: Buffer): PageFileHeader | null {
  const crcAt = bytes.length - CRC_BYTES;
  if (crcAt < HEADER_START_BYTES || crc32(bytes.subarray(0, crcAt)) !== bytes.readUInt32BE(crcAt)) {
    return null;
  }
  try {
    const reader = new ByteReader(bytes.subarray(0, crcAt));
    reader.bytes("start", HEADER_START_BYTES);
    const header = readFields(reader);
    // What is encoded again has no second form: padding, lengths and counts are as they must be.
    return header !== null && encodeHeader(header).equals(bytes) ? header : null;
  } catch (error) {
    if (error instanceof ByteError || error instanceof TypeError) return null;
    throw error;
  }
}

function readFields(reader: ByteReader): PageFileHeader | null {
  const scope = scopeOf(reader.u32("scope"));
  const pageBytes = reader.u32("pageBytes");
  const epoch = reader.u64AsNumber("epoch");
  const pages = reader.u64AsNumber("pages");
  const uuid = formatUuid(reader.bytes("uuid", UUID_BYTES));
  const salt = Buffer.from(reader.bytes("salt", SALT_BYTES));
  const keyId = Buffer.from(reader.bytes("keyId", KEY_ID_BYTES));
  const migrationId = readText(reader, "migrationId");
  const guestName = readText(reader, "guestName");
  const count = reader.u32("blocks");
  if (scope === null || pageBytes !== PAGE_BYTES || count > RAM_BLOCKS_MAX) return null;
  const blocks = Array.from({ length: count }, () => ({
    name: readText(reader, "block"),
    lengthBytes: reader.u64AsNumber("lengthBytes"),
  }));
  const header = { scope, migrationId, epoch, guestName, uuid, blocks, salt, keyId };
  return isSubjectPossible(header) && pagesOf(blocks) === pages ? header : null;
}

function isSubjectPossible(subject: PageFileSubject): boolean {
  const { migrationId, epoch, guestName, uuid, blocks } = subject;
  return (
    MIGRATION_ID.test(migrationId) &&
    UUID.test(uuid) &&
    Number.isSafeInteger(epoch) &&
    epoch >= 0 &&
    isName(guestName) &&
    blocks.length >= 1 &&
    blocks.length <= RAM_BLOCKS_MAX &&
    blocks.every(
      ({ name, lengthBytes }) =>
        isName(name) &&
        Number.isSafeInteger(lengthBytes) &&
        lengthBytes > 0 &&
        lengthBytes % PAGE_BYTES === 0,
    ) &&
    pagesOf(blocks) <= PAGES_MAX
  );
}

function isName(name: string): boolean {
  return name.length > 0 && Buffer.byteLength(name) <= NAME_BYTES_MAX && name.isWellFormed();
}

function scopeOf(number: number): PageFileScope | null {
  const scopes = Object.keys(SCOPE_NUMBERS) as PageFileScope[];
  return scopes.find((scope) => SCOPE_NUMBERS[scope] === number) ?? null;
}

function formatUuid(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString("hex")
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** @throws TypeError for what is no UTF-8 */
function readText(reader: ByteReader, field: string): string {
  const bytes = reader.bytes(field, reader.u16(`${field}Bytes`));
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}
