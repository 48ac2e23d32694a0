/**
 * MessagePack as plainly as the format's description has it, so that tests can send what no proper
 * encoder would: numbers in a wider form than they need, keys twice, raw tokens.
 */

/** Bytes that stand where a value would. */
export class RawValue {
  readonly bytes: Buffer;

  constructor(hex: string) {
    this.bytes = Buffer.from(hex, "hex");
  }
}

/** A map as its entries, in order: keys may be anything, and come twice. */
export class Entries {
  readonly entries: readonly (readonly [unknown, unknown])[];

  constructor(...entries: readonly (readonly [unknown, unknown])[]) {
    this.entries = entries;
  }
}

export function naivePack(value: unknown): Buffer {
  if (value instanceof RawValue) return value.bytes;
  if (value === null) return Buffer.of(0xc0);
  if (typeof value === "boolean") return Buffer.of(value ? 0xc3 : 0xc2);
  if (typeof value === "number") return packNumber(value);
  if (typeof value === "bigint") return packBigint(value);
  if (typeof value === "string") return packString(value);
  if (value instanceof Uint8Array) {
    return Buffer.concat([Buffer.of(0xc5), number16(value.length), value]);
  }
  if (Array.isArray(value)) {
    const header = value.length < 16 ? Buffer.of(0x90 + value.length) : head16(0xdc, value.length);
    return Buffer.concat([header, ...value.map(naivePack)]);
  }
  if (value instanceof Entries) return packMap(value.entries);
  if (typeof value === "object") return packMap(Object.entries(value));
  throw new Error(`no MessagePack for ${typeof value}`);
}

function packMap(entries: readonly (readonly [unknown, unknown])[]): Buffer {
  const header =
    entries.length < 16 ? Buffer.of(0x80 + entries.length) : head16(0xde, entries.length);
  return Buffer.concat([header, ...entries.flat().map(naivePack)]);
}

function packNumber(value: number): Buffer {
  if (Number.isInteger(value) && !Object.is(value, -0)) {
    if (value >= 0 && value < 128) return Buffer.of(value);
    if (value >= -32 && value < 0) return Buffer.of(256 + value);
    if (value >= 0 && value < 2 ** 32) {
      const bytes = Buffer.of(0xce, 0, 0, 0, 0);
      bytes.writeUInt32BE(value, 1);
      return bytes;
    }
  }
  const bytes = Buffer.alloc(9, 0xcb);
  bytes.writeDoubleBE(value, 1);
  return bytes;
}

/** Always in the 64-bit form: unsigned where it can be. */
function packBigint(value: bigint): Buffer {
  const bytes = Buffer.alloc(9, value < 0n ? 0xd3 : 0xcf);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, value), 1);
  return bytes;
}

function packString(value: string): Buffer {
  const bytes = Buffer.from(value);
  const header = bytes.length < 32 ? Buffer.of(0xa0 + bytes.length) : head16(0xda, bytes.length);
  return Buffer.concat([header, bytes]);
}

function head16(token: number, count: number): Buffer {
  return Buffer.concat([Buffer.of(token), number16(count)]);
}

function number16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}
