/** The records of the source's ownership, as its journal has them and as the transitions know them. */
import type { JournalRecordOf } from "@vmferry/agent";
import type { SourceRecord, StunRef } from "@vmferry/protocol";

export interface RecordContext {
  /** The configured name of the dest. */
  readonly peer: string;
  /** A witness has the last word about this stun. */
  readonly witness: boolean;
  /** Why the guest came back. */
  readonly reason: string;
}

export function journalRecordOf(
  record: SourceRecord,
  { peer, witness, reason }: RecordContext,
): JournalRecordOf<"source"> {
  const { migrationId, epoch, generation } = record.stun;
  const base = { migrationId, epoch, generation, peer };
  switch (record.record) {
    case "begin":
    case "kept":
    case "done":
      return { kind: record.record, ...base, peerIncarnation: null };
    case "reclaimed":
      return { kind: "reclaimed", ...base, peerIncarnation: null, reason };
    case "released":
      return { kind: "released", ...base, peerIncarnation: record.incarnation };
    case "handed-off":
      return {
        kind: "handed-off",
        ...base,
        peerIncarnation: record.incarnation,
        digest: record.digest,
        ...(witness ? { witness } : {}),
      };
  }
}

export function sourceRecordOf(record: JournalRecordOf<"source">): SourceRecord {
  const { migrationId, epoch, generation } = record;
  const stun: StunRef = { migrationId, epoch, generation };
  switch (record.kind) {
    case "begin":
    case "done":
      return { record: record.kind, epoch, stun };
    case "kept":
      return { record: "kept", epoch: epoch - 1, stun };
    case "reclaimed":
      // The refused epoch is burnt.
      return { record: "reclaimed", epoch: epoch + 1, stun };
    case "released":
      return { record: "released", epoch, stun, incarnation: record.peerIncarnation };
    case "handed-off": {
      const { peerIncarnation: incarnation, digest } = record;
      return { record: "handed-off", epoch, stun, incarnation, digest };
    }
  }
}
