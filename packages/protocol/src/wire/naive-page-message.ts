/**
 * Page messages once more, from the description alone and as plainly as possible: what the tests
 * compare `page-message.ts` with. It shares no code and no constant with it but the checksum of
 * `naive-frame.ts`.
 */
import { naiveCrc32c } from "./naive-frame.ts";
import type { PageMessage } from "./page-message.ts";

/** A message with a right checksum, whatever else is wrong with it. */
export function naiveMessage(kind: number, fifth: number, ...words: readonly number[]): Buffer {
  const [sixth = 0, ...rest] = words;
  const body = Buffer.concat([
    Buffer.of(kind, fifth, sixth >> 8, sixth & 0xff),
    ...rest.map(number32),
  ]);
  return Buffer.concat([number32(naiveCrc32c(body)), body]);
}

export function resealed(bytes: Buffer): Buffer {
  return Buffer.concat([number32(naiveCrc32c(bytes.subarray(4))), bytes.subarray(4)]);
}

export function naiveEncode(message: PageMessage): Buffer {
  switch (message.kind) {
    case "request":
      return naiveMessage(129, message.pages, message.block, message.firstPage);
    case "placed":
      return naiveMessage(130, message.lane === "urgent" ? 1 : 2, 0, message.bytes);
    case "missing": {
      const runs = message.runs.flatMap(({ first, count }) => [first, count]);
      const head = [message.block, message.runs.length * 65_536];
      return naiveMessage(131, message.last ? 1 : 0, ...head, ...runs);
    }
    case "all":
      return naiveMessage(133, 0, 0);
    case "served": {
      const words = (message.ramDigest ?? "").match(/.{8}/g) ?? [];
      const flag = message.ramDigest === null ? 0 : 1;
      return naiveMessage(132, flag, 0, ...words.map((word) => parseInt(word, 16)));
    }
  }
}

/** What the bytes say, or null where they have to be refused. */
export function naiveDecode(bytes: Buffer): PageMessage | null {
  if (bytes.length < 8 || bytes.length > 32_780) return null;
  if (naiveCrc32c(bytes.subarray(4)) !== bytes.readUInt32BE(0)) return null;
  const [kind, fifth, sixth] = [bytes[4], bytes[5]!, bytes[6]! * 256 + bytes[7]!];
  if (kind === 129 && bytes.length === 12) {
    const firstPage = bytes.readUInt32BE(8);
    const isGood = sixth < 256 && fifth >= 1 && fifth <= 16 && firstPage + fifth <= 2 ** 32;
    return isGood ? { kind: "request", block: sixth, firstPage, pages: fifth } : null;
  }
  if (kind === 130 && bytes.length === 12) {
    const placed = bytes.readUInt32BE(8);
    if (sixth !== 0 || fifth < 1 || fifth > 2 || placed < 1 || placed > 16_777_216) return null;
    return { kind: "placed", lane: fifth === 1 ? "urgent" : "background", bytes: placed };
  }
  if (kind === 131 && bytes.length >= 12) return naiveMissingOf(bytes);
  if (kind === 132 && sixth === 0 && bytes.length === (fifth === 1 ? 40 : 8) && fifth <= 1) {
    return { kind: "served", ramDigest: fifth === 1 ? bytes.toString("hex", 8) : null };
  }
  if (kind === 133 && fifth === 0 && sixth === 0 && bytes.length === 8) return { kind: "all" };
  return null;
}

function naiveMissingOf(bytes: Buffer): PageMessage | null {
  const [last, block, count] = [bytes[5]!, bytes[6]! * 256 + bytes[7]!, bytes.readUInt16BE(8)];
  if (last > 1 || block > 255 || count > 4096 || bytes.readUInt16BE(10) !== 0) return null;
  if (bytes.length !== 12 + 8 * count) return null;
  if (count === 0)
    return last === 1 && block === 0 ? { kind: "missing", block, runs: [], last: true } : null;
  const runs: { first: number; count: number }[] = [];
  for (let at = 12; at < bytes.length; at += 8) {
    const run = { first: bytes.readUInt32BE(at), count: bytes.readUInt32BE(at + 4) };
    const before = runs.at(-1);
    if (run.count === 0 || run.first + run.count > 2 ** 32) return null;
    if (before !== undefined && run.first < before.first + before.count) return null;
    runs.push(run);
  }
  return { kind: "missing", block, runs, last: last === 1 };
}

function number32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
