/**
 * The bytes of a present map, big-endian, in blocks of 4096 bytes, which is what a file system writes
 * as one:
 *
 *   header · header · durable pages · durable pages · written pages · written pages
 *
 * Header and pages have two slots that take turns, far from each other: a write that is torn leaves
 * the one before it. Each block has at its end the CRC32C of everything before.
 *
 *   header   0 u8[8] magic "vmferryB" · 8 u32 version 1 · 12 u32 state · 16 u64 sequence
 *           24 u64 imageBytes · 32 u64 epoch · 40 u32 unitBytes · 44 u32 0
 *           48 u8[64] migrationId, NUL behind it · 112 u8[36] boot id of the host · then zeros
 *   page     0 u64 sequence · 8 u32 layer · 12 u32 index · 16 u8[4076] a bit for each unit, bit 0 of
 *            byte 0 for the first; bits behind the last unit are zero
 */
import { crc32c } from "@node-rs/crc32";
import { assert } from "@vmferry/core";

export const MAP_BLOCK_BYTES = 4096;
export const PAGE_BITMAP_BYTES = 4076;
/** Units of a page. */
export const PAGE_UNITS = PAGE_BITMAP_BYTES * 8;
/** A 32 TiB disk in units of 256 KiB. */
const UNITS_MAX = 2 ** 27;

const MAGIC = Buffer.from("vmferryB", "latin1");
const VERSION = 1;
const BITMAP_AT = 16;
const CRC_AT = MAP_BLOCK_BYTES - 4;
const MIGRATION_ID_AT = 48;
const MIGRATION_ID_BYTES = 64;
const BOOT_ID_AT = 112;
const BOOT_ID_BYTES = 36;
const MIGRATION_ID = /^[\x21-\x7e]{1,64}$/;
const BOOT_ID = /^[0-9a-f-]{36}$/;
const STATES = ["open", "failed"] as const;
const LAYERS = ["durable", "written"] as const;

/** Whose map it is. */
export interface MapSubject {
  readonly imageBytes: number;
  readonly unitBytes: number;
  readonly migrationId: string;
  readonly epoch: number;
}

/** `failed`: something that the map or the image was to hold may be lost. */
export type MapState = (typeof STATES)[number];
export type MapLayerName = (typeof LAYERS)[number];

export interface MapHeader extends MapSubject {
  readonly state: MapState;
  readonly sequence: number;
  readonly bootId: string;
}

export interface MapPage {
  readonly layer: MapLayerName;
  readonly index: number;
  readonly sequence: number;
  readonly bitmap: Uint8Array;
}

export function unitsOf({ imageBytes, unitBytes }: MapSubject): number {
  return Math.ceil(imageBytes / unitBytes);
}

export function pagesOf(subject: MapSubject): number {
  return Math.ceil(unitsOf(subject) / PAGE_UNITS);
}

export function mapBytesOf(subject: MapSubject): number {
  return (2 + 4 * pagesOf(subject)) * MAP_BLOCK_BYTES;
}

export function headerPosition(sequence: number): number {
  return (sequence % 2) * MAP_BLOCK_BYTES;
}

export function pagePosition(
  subject: MapSubject,
  { layer, index, sequence }: Omit<MapPage, "bitmap">,
): number {
  const table = LAYERS.indexOf(layer) * 2 + (sequence % 2);
  return (2 + table * pagesOf(subject) + index) * MAP_BLOCK_BYTES;
}

export function isMapSubject(subject: MapSubject): boolean {
  const { imageBytes, unitBytes, epoch, migrationId } = subject;
  return (
    Number.isSafeInteger(imageBytes) &&
    imageBytes > 0 &&
    Number.isSafeInteger(unitBytes) &&
    unitBytes >= 512 &&
    unitBytes < 2 ** 32 &&
    unitsOf(subject) <= UNITS_MAX &&
    Number.isSafeInteger(epoch) &&
    epoch >= 0 &&
    MIGRATION_ID.test(migrationId)
  );
}

export function encodeMapHeader(header: MapHeader): Buffer {
  assert(isMapSubject(header) && BOOT_ID.test(header.bootId), "a header would be understood");
  const bytes = Buffer.alloc(MAP_BLOCK_BYTES);
  MAGIC.copy(bytes);
  bytes.writeUInt32BE(VERSION, 8);
  bytes.writeUInt32BE(STATES.indexOf(header.state) + 1, 12);
  bytes.writeBigUInt64BE(BigInt(header.sequence), 16);
  bytes.writeBigUInt64BE(BigInt(header.imageBytes), 24);
  bytes.writeBigUInt64BE(BigInt(header.epoch), 32);
  bytes.writeUInt32BE(header.unitBytes, 40);
  bytes.write(header.migrationId, MIGRATION_ID_AT, "latin1");
  bytes.write(header.bootId, BOOT_ID_AT, "latin1");
  return sealed(bytes);
}

/** Null for what is no header of this version. */
export function decodeMapHeader(bytes: Buffer): MapHeader | null {
  if (!isSealed(bytes) || !bytes.subarray(0, 8).equals(MAGIC)) return null;
  if (bytes.readUInt32BE(8) !== VERSION) return null;
  const state = STATES[bytes.readUInt32BE(12) - 1];
  const header = {
    sequence: Number(bytes.readBigUInt64BE(16)),
    imageBytes: Number(bytes.readBigUInt64BE(24)),
    epoch: Number(bytes.readBigUInt64BE(32)),
    unitBytes: bytes.readUInt32BE(40),
    migrationId: textAt(bytes, MIGRATION_ID_AT, MIGRATION_ID_BYTES),
    bootId: textAt(bytes, BOOT_ID_AT, BOOT_ID_BYTES),
  };
  if (state === undefined || !Number.isSafeInteger(header.sequence)) return null;
  return isMapSubject(header) && BOOT_ID.test(header.bootId) ? { ...header, state } : null;
}

export function encodeMapPage({ layer, index, sequence, bitmap }: MapPage): Buffer {
  assert(bitmap.length === PAGE_BITMAP_BYTES, "a page has its units");
  const bytes = Buffer.alloc(MAP_BLOCK_BYTES);
  bytes.writeBigUInt64BE(BigInt(sequence), 0);
  bytes.writeUInt32BE(LAYERS.indexOf(layer) + 1, 8);
  bytes.writeUInt32BE(index, 12);
  bytes.set(bitmap, BITMAP_AT);
  return sealed(bytes);
}

/** Null for what is no page. The bitmap is a view. */
export function decodeMapPage(bytes: Buffer): MapPage | null {
  if (!isSealed(bytes)) return null;
  const layer = LAYERS[bytes.readUInt32BE(8) - 1];
  const sequence = Number(bytes.readBigUInt64BE(0));
  if (layer === undefined || !Number.isSafeInteger(sequence)) return null;
  return {
    layer,
    sequence,
    index: bytes.readUInt32BE(12),
    bitmap: bytes.subarray(BITMAP_AT, BITMAP_AT + PAGE_BITMAP_BYTES),
  };
}

function sealed(bytes: Buffer): Buffer {
  bytes.writeUInt32BE(crc32c(bytes.subarray(0, CRC_AT)), CRC_AT);
  return bytes;
}

function isSealed(bytes: Buffer): boolean {
  if (bytes.length !== MAP_BLOCK_BYTES) return false;
  return crc32c(bytes.subarray(0, CRC_AT)) === bytes.readUInt32BE(CRC_AT);
}

function textAt(bytes: Buffer, at: number, length: number): string {
  return bytes.toString("latin1", at, at + length).replace(/\0+$/, "");
}
