/**
 * Bulk frames once more, from the description alone and as plainly as possible: what the tests
 * compare `bulk-frame.ts` and `disk-frame.ts` with. It shares no code and no constant with them.
 */

export interface NaiveRun {
  readonly first: number;
  readonly pages: number;
  readonly zero: boolean;
}

/** Its fields as they lie on the wire, reserved bytes included. */
export interface NaiveExtent {
  readonly offset: bigint;
  readonly length: number;
  readonly operation: number;
  readonly reserved?: number;
}

/** The fields as they lie on the wire, so that a test can break each one alone. */
export interface NaiveFields {
  readonly version: number;
  readonly kind: number;
  readonly encoding: number;
  readonly reserved7: number;
  readonly pass: number;
  /** null: as many as there are. */
  readonly payloadBytes: number | null;
  readonly sequence: bigint;
  readonly block: number;
  readonly runs: number;
  readonly reserved28: number;
  readonly payload: Buffer;
}

export interface NaiveFrame {
  readonly kind: number;
  readonly encoding: number;
  readonly pass: number;
  readonly sequence: number;
  readonly block: number;
  readonly runs: number;
}

const PLAIN: NaiveFields = {
  version: 2,
  kind: 1,
  encoding: 1,
  reserved7: 0,
  pass: 0,
  payloadBytes: null,
  sequence: 0n,
  block: 0,
  runs: 0,
  reserved28: 0,
  payload: Buffer.alloc(0),
};

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) * 0x82f63b78);
  return crc;
});

export function naiveCrc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 0xff]!;
  return (crc ^ 0xffff_ffff) >>> 0;
}

/** A frame with a right checksum, whatever else is wrong with it. */
export function naiveFrame(fields: Partial<NaiveFields>): Buffer {
  const frame = { ...PLAIN, ...fields };
  const body = Buffer.concat([
    Buffer.of(frame.version, frame.kind, frame.encoding, frame.reserved7),
    number32(frame.pass),
    number32(frame.payloadBytes ?? frame.payload.length),
    number32(Number(frame.sequence >> 32n)),
    number32(Number(frame.sequence & 0xffff_ffffn)),
    number32(frame.block * 65_536 + frame.runs),
    number32(frame.reserved28),
    frame.payload,
  ]);
  return Buffer.concat([number32(naiveCrc32c(body)), body]);
}

export function naiveRun({ first, pages, zero }: NaiveRun): Buffer {
  return Buffer.concat([number32(first), number32(pages + (zero ? 2 ** 31 : 0))]);
}

/** The frame of these runs, each data page filled with its own number. */
export function naivePages(runs: readonly NaiveRun[], fields: Partial<NaiveFields> = {}): Buffer {
  const numbers = runs.flatMap(({ first, pages, zero }) =>
    zero ? [] : Array.from({ length: pages }, (_, index) => first + index),
  );
  const data = numbers.map((number) => Buffer.alloc(4096, number % 251));
  const payload = Buffer.concat([...runs.map(naiveRun), ...data]);
  return naiveFrame({ kind: 2, runs: runs.length, payload, ...fields });
}

/** A MISSING frame of these runs, whatever is wrong with them. */
export function naiveMissing(runs: readonly NaiveRun[], fields: Partial<NaiveFields> = {}): Buffer {
  const payload = Buffer.concat(runs.map(naiveRun));
  return naiveFrame({ kind: 7, runs: runs.length, payload, ...fields });
}

export function naiveExtent({ offset, length, operation, reserved = 0 }: NaiveExtent): Buffer {
  return Buffer.concat([
    number32(Number(offset >> 32n)),
    number32(Number(offset & 0xffff_ffffn)),
    number32(length),
    number32(operation * 2 ** 24 + reserved),
  ]);
}

/** The frame of these extents, the data of each filled with its position in the table, from 1. */
export function naiveDisk(
  extents: readonly NaiveExtent[],
  fields: Partial<NaiveFields> = {},
): Buffer {
  const data = extents.map(({ length, operation }, index) =>
    Buffer.alloc(operation === 1 ? length : 0, 1 + (index % 251)),
  );
  const payload = Buffer.concat([...extents.map(naiveExtent), ...data]);
  return naiveFrame({ kind: 5, runs: extents.length, payload, ...fields });
}

/** What the frame says, or null when it has to be refused. */
export function naiveOpen(bytes: Buffer): NaiveFrame | null {
  if (bytes.length < 32 || bytes.length > 264_224) return null;
  if (naiveCrc32c(bytes.subarray(4)) !== bytes.readUInt32BE(0)) return null;
  const [version, kind, encoding] = [bytes.readUInt8(4), bytes.readUInt8(5), bytes.readUInt8(6)];
  const payloadBytes = bytes.readUInt32BE(12);
  const pass = bytes.readUInt32BE(8);
  const sequence = bytes.readBigUInt64BE(16);
  const [block, runs] = [bytes.readUInt16BE(24), bytes.readUInt16BE(26)];
  if (version !== 2 || bytes.readUInt8(7) !== 0) return null;
  if (encoding !== 1 && !(encoding === 2 && (kind === 2 || kind === 5))) return null;
  if (payloadBytes !== bytes.length - 32 || bytes.readUInt32BE(28) !== 0) return null;
  if (sequence > 9_007_199_254_740_991n) return null;
  const pagesBytes = payloadBytes - 8 * runs;
  const extentsBytes = payloadBytes - 16 * runs;
  const fits =
    (kind === 1 && payloadBytes <= 262_144 && block === 0 && runs === 0) ||
    (kind === 2 &&
      block < 256 &&
      runs >= 1 &&
      runs <= 256 &&
      pagesBytes >= 0 &&
      pagesBytes <= 262_144) ||
    ((kind === 3 || kind === 4) && payloadBytes === 0 && block === 0 && runs === 0) ||
    (kind === 5 &&
      pass === 0 &&
      block < 24 &&
      runs >= 1 &&
      runs <= 128 &&
      extentsBytes >= 0 &&
      extentsBytes <= 262_144) ||
    (kind === 6 && pass === 0 && payloadBytes === 0 && block === 0 && runs === 0) ||
    (kind === 7 && block < 256 && runs >= 1 && runs <= 256 && pagesBytes === 0) ||
    (kind === 8 && payloadBytes === 4 && block === 0 && runs === 0);
  if (!fits) return null;
  return {
    kind,
    encoding,
    pass,
    sequence: Number(sequence),
    block,
    runs,
  };
}

/** The pages that an opened MISSING frame names, in the order of its runs; null: to be refused. */
export function naiveMissingPages(bytes: Buffer, blockPages: number): number[] | null {
  const named: number[] = [];
  for (let at = 32; at < bytes.length; at += 8) {
    const first = bytes.readUInt32BE(at);
    const pages = bytes.readUInt32BE(at + 4);
    if (pages === 0 || first + pages > blockPages) return null;
    for (let page = first; page < first + pages; page++) named.push(page);
  }
  return new Set(named).size === named.length ? named : null;
}

/**
 * The pages that an opened PAGES frame writes, in the order of its runs; null: to be refused. Data
 * that is compressed has no fill that could be seen here.
 */
export function naiveWrites(
  bytes: Buffer,
  blockPages: number,
): { readonly page: number; readonly fill: number | null }[] | null {
  const runs = bytes.readUInt16BE(26);
  const writes: { page: number; fill: number | null }[] = [];
  const seen = new Set<number>();
  const isRaw = bytes.readUInt8(6) === 1;
  let dataAt = 32 + 8 * runs;
  let dataPages = 0;
  for (let run = 0; run < runs; run++) {
    const first = bytes.readUInt32BE(32 + 8 * run);
    const word = bytes.readUInt32BE(36 + 8 * run);
    const zero = word >= 2 ** 31;
    const pages = zero ? word - 2 ** 31 : word;
    if (pages === 0 || first + pages > blockPages) return null;
    for (let page = first; page < first + pages; page++) {
      if (seen.has(page) || (!zero && ++dataPages > 64)) return null;
      seen.add(page);
      writes.push({ page, fill: zero || !isRaw ? null : (bytes[dataAt] ?? null) });
      if (!zero) dataAt += 4096;
    }
  }
  return isRaw && dataAt !== bytes.length ? null : writes;
}

export interface NaiveExtents {
  readonly extents: readonly {
    readonly operation: number;
    readonly offset: number;
    readonly length: number;
  }[];
  /** Of the DATA extents; empty for one that is compressed. */
  readonly fills: readonly number[];
  readonly dataBytes: number;
  readonly disjoint: boolean;
}

/** What an opened DISK frame asks for; null: to be refused. */
export function naiveExtents(bytes: Buffer, diskBytes: number): NaiveExtents | null {
  const count = bytes.readUInt16BE(26);
  const isRaw = bytes.readUInt8(6) === 1;
  const extents: { operation: number; offset: number; length: number }[] = [];
  const fills: number[] = [];
  let dataAt = 32 + 16 * count;
  let dataBytes = 0;
  for (let at = 32; at < 32 + 16 * count; at += 16) {
    const offset = bytes.readBigUInt64BE(at);
    const length = bytes.readUInt32BE(at + 8);
    const operation = bytes.readUInt8(at + 12);
    const reserved = bytes.readUIntBE(at + 13, 3);
    if (length === 0 || length > 1_073_741_824 || reserved !== 0) return null;
    if (operation < 1 || operation > 3) return null;
    if (offset + BigInt(length) > BigInt(diskBytes)) return null;
    extents.push({ operation, offset: Number(offset), length });
    if (operation !== 1) continue;
    if (isRaw) fills.push(bytes[dataAt] ?? -1);
    dataAt += length;
    dataBytes += length;
  }
  if (dataBytes > 262_144) return null;
  if (isRaw ? dataAt !== bytes.length : dataBytes === 0) return null;
  const disjoint = extents.every((one, i) =>
    extents.every((other, j) => {
      const apart =
        one.offset + one.length <= other.offset || other.offset + other.length <= one.offset;
      return i === j || apart;
    }),
  );
  return { extents, fills, dataBytes, disjoint };
}

function number32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
