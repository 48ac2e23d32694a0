import type { MigrationRole } from "@vmferry/protocol";
import {
  decodeHead,
  decodeHeader,
  decodePayload,
  HEADER_BYTES,
  RECORD_HEAD_BYTES,
  type ChainLink,
  type JournalHeader,
  type JournalIdentity,
} from "./journal-codec.ts";
import { journalDamaged, journalTooNew, type JournalError } from "./journal-error.ts";
import { decodeRecord, RECORD_VERSION, type JournalRecordOf } from "./journal-record.ts";
import { isTornAppend } from "./torn-append.ts";

export interface JournalReading<R extends MigrationRole> {
  readonly incarnation: string;
  readonly records: readonly JournalRecordOf<R>[];
  /** Where the last record begins, or the header where there is none. */
  readonly lastAt: number;
  /** Where the next record goes, and how it hangs on the last one. */
  readonly endBytes: number;
  readonly next: ChainLink;
  /** What an append left behind `endBytes` that never ended. */
  readonly tornBytes: number;
}

/**
 * Reads a whole journal. It either says what was written to it, in order and without a gap, or is
 * refused: throws `journal-damaged` or `journal-too-new`. `path` is for the error alone.
 */
export function readJournal<R extends MigrationRole>(
  bytes: Buffer,
  identity: JournalIdentity<R>,
  path: string,
): JournalReading<R> {
  const { header, crc } = readHeader(bytes, identity, path);
  const records: JournalRecordOf<R>[] = [];
  let at = HEADER_BYTES;
  let lastAt = 0;
  let next: ChainLink = { seq: header.firstSeq, prevCrc: crc };
  while (at < bytes.length) {
    const rest = bytes.subarray(at);
    const head = decodeHead(rest);
    const payload = head === null ? null : decodePayload(rest, head);
    if (head === null || payload === null) {
      if (isTornAppend(rest, at, next)) break;
      throw journalDamaged(path, `at byte ${at} there should be record ${next.seq}`);
    }
    if (head.seq !== next.seq || head.prevCrc !== next.prevCrc) {
      throw journalDamaged(path, `record ${head.seq} does not follow on record ${next.seq - 1}`);
    }
    if (head.version > RECORD_VERSION) throw journalTooNew(path, head.version);
    const record = decodeRecord(identity.role, { ...head, payload });
    if (record === null) throw journalDamaged(path, `record ${head.seq} is none of the known ones`);
    records.push(record);
    lastAt = at;
    at += RECORD_HEAD_BYTES + head.payloadBytes;
    next = { seq: head.seq + 1, prevCrc: head.crc };
  }
  const { incarnation } = header;
  return { incarnation, records, lastAt, endBytes: at, next, tornBytes: bytes.length - at };
}

function readHeader(
  bytes: Buffer,
  identity: JournalIdentity,
  path: string,
): { readonly header: JournalHeader; readonly crc: number } {
  const reading = decodeHeader(bytes);
  if (reading.kind === "too-new") throw journalTooNew(path, reading.version);
  // A journal comes into being with its header, so that one without it was damaged.
  if (reading.kind === "damaged") throw journalDamaged(path, "it has no header of a journal");
  const stranger = strangerIn(reading.header, identity, path);
  if (stranger !== null) throw stranger;
  return reading;
}

function strangerIn(
  { role, guest, uuid }: JournalHeader,
  identity: JournalIdentity,
  path: string,
): JournalError | null {
  if (role === identity.role && guest === identity.guest && uuid === identity.uuid) return null;
  const [theirs, ours] = [{ role, guest, uuid }, identity].map(
    (one) => `guest ${one.guest} (${one.uuid}) at the ${one.role}`,
  );
  return journalDamaged(path, `it is that of ${theirs}, not of ${ours}`);
}
