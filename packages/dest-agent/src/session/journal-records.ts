/** The records of the dest's ownership, as its journal has them and as the transitions know them. */
import type { AfterFailure, JournalRecordOf } from "@vmferry/agent";
import type { DestAction, DestRecord } from "@vmferry/protocol";

export interface RecordContext {
  /** Of the source's journal. */
  readonly peerIncarnation: string;
  /** A witness has the last word about this stun. */
  readonly witness: boolean;
}

export function journalRecordOf(
  record: DestRecord,
  { peerIncarnation, witness }: RecordContext,
): JournalRecordOf<"dest"> {
  const { migrationId, epoch, generation } = record.stun;
  const base = { migrationId, epoch, generation, peerIncarnation };
  switch (record.record) {
    case "reserved":
    case "taken":
    case "complete":
      return { kind: record.record, ...base };
    case "prepared":
      return {
        kind: "prepared",
        ...base,
        digest: record.digest,
        ...(witness ? { witness } : {}),
      };
    case "refused":
      return { kind: "refused", ...base, reason: record.code };
  }
}

export function destRecordOf(record: JournalRecordOf<"dest">): DestRecord {
  const { migrationId, epoch, generation } = record;
  const stun = { migrationId, epoch, generation };
  switch (record.kind) {
    case "reserved":
    case "taken":
    case "complete":
      return { record: record.kind, stun };
    case "prepared":
      return { record: "prepared", stun, digest: record.digest };
    case "refused":
      return { record: "refused", stun, code: record.reason };
  }
}

/** What cannot be recorded is not done, nor its opposite: only an agent that starts anew goes on. */
export function afterFailure(action: DestAction): AfterFailure {
  return action.do === "record" ? "halt" : "go-on";
}
