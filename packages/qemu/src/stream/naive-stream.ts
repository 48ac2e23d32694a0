import { createHash } from "node:crypto";

/*
 * For tests: the migration stream written down a second time, in the plainest way that works (one
 * whole buffer, bigint addresses, a list of events), to hold the real codec against.
 */

export type StreamEvent =
  | readonly ["verbatim" | "device-state", string]
  | readonly ["command", number, string]
  | readonly ["ram-start", number, string]
  | readonly ["page", number, number, string]
  | readonly ["zero-page", number, number]
  | readonly ["package-end" | "part-end" | "ram-end"];

export interface NaivePage {
  /** Null = leave the name out. */
  readonly block: string | null;
  readonly page: number;
  /** Null = a zero page; else what its bytes are made from. */
  readonly seed: number | null;
}

export interface NaiveBlock {
  readonly name: string;
  readonly pageCount: number;
  readonly hostPageBytes?: number;
}

export function u16(value: number): Buffer {
  return Buffer.of(value >>> 8, value & 255);
}

export function u32(value: number): Buffer {
  return Buffer.concat([u16(value >>> 16), u16(value & 0xffff)]);
}

export function u64(value: bigint): Buffer {
  return Buffer.concat([u32(Number(value >> 32n)), u32(Number(value & 0xffffffffn))]);
}

export function str8(text: string): Buffer {
  return Buffer.concat([Buffer.of(text.length), Buffer.from(text, "latin1")]);
}

/** A page whose bytes differ from place to place and from seed to seed. */
export function pageBytes(seed: number): Buffer {
  return Buffer.from(
    Array.from({ length: 4096 }, (_, at) => (seed * 31 + at * 7 + (at >> 8)) & 255),
  );
}

export function digest(page: Uint8Array): string {
  return createHash("sha256").update(page).digest("hex").slice(0, 12);
}

export const NAIVE_EOS = u64(0x10n);
export const NAIVE_HEADER = Buffer.concat([Buffer.from("QEVM"), u32(3)]);

export function naiveFooter(sectionId: number): Buffer {
  return Buffer.concat([Buffer.of(0x7e), u32(sectionId)]);
}

export function naiveCommand(command: number, payload: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(0x08), u16(command), u16(payload.length), payload]);
}

/** Devices between LISTEN and RUN. */
export function naivePackageOf(devices: Uint8Array): Buffer {
  return Buffer.concat([
    naiveCommand(4, Buffer.alloc(0)),
    devices,
    naiveCommand(5, Buffer.alloc(0)),
  ]);
}

export function naivePackage(devices: Uint8Array): Buffer {
  const payload = naivePackageOf(devices);
  return Buffer.concat([naiveCommand(7, u32(payload.length)), payload]);
}

/** Host and target pages of 4096 bytes. */
export const NAIVE_ADVISE = naiveCommand(3, Buffer.concat([u64(4096n), u64(4096n)]));

export function naiveConfiguration(machine: string): Buffer {
  return Buffer.concat([Buffer.of(0x07), u32(machine.length), Buffer.from(machine)]);
}

export function naiveSectionHead(sectionId: number, idstr: string, version: number): Buffer {
  return Buffer.concat([Buffer.of(0x01), u32(sectionId), str8(idstr), u32(0), u32(version)]);
}

export function naiveRamStart(sectionId: number, blocks: readonly NaiveBlock[]): Buffer {
  const total = blocks.reduce((sum, block) => sum + BigInt(block.pageCount) * 4096n, 0n);
  const list = blocks.map(({ name, pageCount, hostPageBytes }) =>
    Buffer.concat([
      str8(name),
      u64(BigInt(pageCount) * 4096n),
      hostPageBytes === undefined ? Buffer.alloc(0) : u64(BigInt(hostPageBytes)),
    ]),
  );
  const head = naiveSectionHead(sectionId, "ram", 4);
  return Buffer.concat([head, u64(total | 4n), ...list, NAIVE_EOS, naiveFooter(sectionId)]);
}

export function naivePage({ block, page, seed }: NaivePage): Buffer {
  const flags = (seed === null ? 0x02n : 0x08n) | (block === null ? 0x20n : 0n);
  const address = u64(BigInt(page) * 4096n + flags);
  const name = block === null ? Buffer.alloc(0) : str8(block);
  return Buffer.concat([address, name, seed === null ? Buffer.alloc(1) : pageBytes(seed)]);
}

export function naiveSection(
  type: 0x02 | 0x03,
  sectionId: number,
  pages: readonly NaivePage[],
): Buffer {
  const body = pages.map((page) => naivePage(page));
  const head = Buffer.concat([Buffer.of(type), u32(sectionId)]);
  return Buffer.concat([head, ...body, NAIVE_EOS, naiveFooter(sectionId)]);
}
