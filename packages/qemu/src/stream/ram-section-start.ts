import type { RamBlock, RamSection } from "./ram-block.ts";
import type { RecordBuffer } from "./record-buffer.ts";
import {
  ADDRESS_BYTES,
  FOOTER_BYTES,
  PAGE_BYTES,
  RAM_FLAG,
  RAM_IDSTR,
  RAM_VERSION,
  RECORD,
} from "./stream-format.ts";
import { StreamError } from "./stream-error.ts";
import { checkLimit, type StreamLimits } from "./stream-limits.ts";
import { unread, type Reading } from "./stream-want.ts";

/*
 * START of `ram`, behind its type byte:
 *
 *   be32 sectionId  str8 idstr  be32 instanceId  be32 version
 *   be64 (total | MEM_SIZE)  *( str8 name  be64 length  [be64 hostPageBytes] )  EOS  FOOTER
 *
 * The blocks add up to `total`; nothing else says how many there are. A block's host page size is
 * there only under post-copy and only where it is not the host's own, which no flag tells. It need
 * not: its first byte is zero, and no name is empty; behind the last block it is a multiple of a
 * page, and EOS is not.
 */

export interface RamStartContext {
  readonly limits: StreamLimits;
  /** The OR of all host page sizes that the source announced; 0 without post-copy. */
  readonly hostPageSizes: number;
}

/** Refuses every section that is not RAM: none of them has a length by which to pass it over. */
export function* readRamStart(record: RecordBuffer, context: RamStartContext): Reading<RamSection> {
  yield unread(5);
  const sectionId = record.u32();
  const idstrBytes = record.u8();
  yield unread(idstrBytes + 8);
  const idstr = record.text(idstrBytes);
  const instanceId = record.u32();
  const version = record.u32();
  if (idstr !== RAM_IDSTR || instanceId !== 0) throw unsupportedSection(idstr, instanceId);
  if (version !== RAM_VERSION) {
    throw new StreamError(`RAM section version ${version}, not ${RAM_VERSION}`, {
      code: "stream-ram-version",
      version,
    });
  }
  const blocks = yield* readBlockList(record, context);
  yield* readFooter(record, sectionId);
  return { sectionId, blocks };
}

/** FULL sections before the end of RAM belong to devices. Reads up to the name, for the message. */
export function* refuseFullSection(record: RecordBuffer): Reading<never> {
  yield unread(5);
  record.u32();
  const idstrBytes = record.u8();
  yield unread(idstrBytes + 4);
  const idstr = record.text(idstrBytes);
  throw unsupportedSection(idstr, record.u32());
}

export function* readFooter(record: RecordBuffer, sectionId: number): Reading<void> {
  yield unread(FOOTER_BYTES);
  const type = record.u8();
  const found = record.u32();
  if (type === RECORD.FOOTER && found === sectionId) return;
  throw new StreamError(`section ${sectionId} ends with ${type}, ${found} for a footer`, {
    code: "stream-bad-footer",
    expected: sectionId,
    found,
  });
}

function* readBlockList(record: RecordBuffer, context: RamStartContext): Reading<RamBlock[]> {
  let left = yield* readTotal(record);
  checkLimit("RAM bytes", left, context.limits.ramBytesMax);
  const blocks: RamBlock[] = [];
  while (left > 0) {
    checkLimit("block count", blocks.length + 1, context.limits.blockCountMax);
    const block = yield* readBlock(record, left);
    left -= block.lengthBytes;
    if (blocks.some(({ name }) => name === block.name)) throw badList(`${block.name} comes twice`);
    const hostPageBytes = yield* readHostPageBytes(record, left === 0);
    if (hostPageBytes === null) blocks.push(block);
    else {
      checkHostPageBytes(hostPageBytes, context.hostPageSizes);
      blocks.push({ ...block, hostPageBytes });
    }
  }
  yield unread(ADDRESS_BYTES);
  if (record.u64() !== RAM_FLAG.EOS) throw badList("something other than EOS follows it");
  return blocks;
}

function* readTotal(record: RecordBuffer): Reading<number> {
  yield unread(ADDRESS_BYTES);
  const high = record.u32();
  const low = record.u32();
  const flags = low % PAGE_BYTES;
  const total = high * 0x100000000 + low - flags;
  if (flags !== RAM_FLAG.MEM_SIZE || total === 0) throw badList("it is missing");
  return total;
}

function* readBlock(record: RecordBuffer, left: number): Reading<RamBlock> {
  yield unread(1);
  const nameBytes = record.u8();
  if (nameBytes === 0) throw badList("a name is empty");
  yield unread(nameBytes + 8);
  const name = record.text(nameBytes);
  const lengthBytes = record.u64();
  if (lengthBytes > left) throw badList(`${name} is longer than what is left of the total`);
  if (lengthBytes % PAGE_BYTES !== 0) throw badList(`${name} is not a whole number of pages`);
  return { name, lengthBytes };
}

function* readHostPageBytes(record: RecordBuffer, isLast: boolean): Reading<number | null> {
  yield unread(isLast ? ADDRESS_BYTES : 1);
  const next = record.unread;
  const isName = !isLast && next[0] !== 0;
  const isFlags = isLast && next.readUInt16BE(6) % PAGE_BYTES !== 0;
  if (isName || isFlags) return null;
  yield unread(8);
  return record.u64();
}

function checkHostPageBytes(bytes: number, announced: number): void {
  const isPowerOfTwo = 2 ** Math.round(Math.log2(bytes)) === bytes;
  const isAnnounced = Math.floor(announced / bytes) % 2 === 1;
  if (isPowerOfTwo && isAnnounced && bytes > PAGE_BYTES) return;
  throw badList(`host pages of ${bytes} bytes were not announced`);
}

function badList(reason: string): StreamError {
  return new StreamError(`the list of RAM blocks: ${reason}`, {
    code: "stream-bad-block-list",
    reason,
  });
}

function unsupportedSection(idstr: string, instanceId: number): StreamError {
  return new StreamError(`section "${idstr}" (instance ${instanceId}) before the end of RAM`, {
    code: "stream-unsupported-section",
    idstr,
    instanceId,
  });
}
