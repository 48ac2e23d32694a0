/** What the journals in `fixtures/` say, written by another implementation of the format. */
import type { JournalIdentity } from "./journal-codec.ts";
import type { JournalRecordOf } from "./journal-record.ts";

const guest = { guest: "web1", uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8" } as const;
export const sourceIdentity: JournalIdentity<"source"> = { role: "source", ...guest };
export const destIdentity: JournalIdentity<"dest"> = { role: "dest", ...guest };
export const SOURCE_INCARNATION = "00000000-1111-4222-8333-444444444444";
export const DEST_INCARNATION = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";

const digest = "0123456789abcdef".repeat(4);
const withDisk = `${digest}:${"f".repeat(64)}`;
const first = {
  migrationId: "1b4e28ba-2fa1-41d2-883f-0016d3cca427",
  epoch: 2,
  generation: 1,
};
const second = {
  migrationId: "9f0c1e5a-3b7d-4c2e-8a61-5d4f3e2b1a09",
  epoch: 4,
  generation: 2,
};
const toDest = { peer: "host-b", peerIncarnation: DEST_INCARNATION };
const fromSource = { peerIncarnation: SOURCE_INCARNATION };
const reason = "dest-qemu-failed";

/** A refused attempt, and one that succeeds. */
export const sourceRecords: readonly JournalRecordOf<"source">[] = [
  { kind: "begin", ...first, peer: "host-b", peerIncarnation: null },
  { kind: "handed-off", ...first, ...toDest, digest: withDisk },
  { kind: "reclaimed", ...first, ...toDest, reason },
  { kind: "begin", ...second, generation: 1, ...toDest },
  { kind: "handed-off", ...second, ...toDest, digest },
  { kind: "released", ...second, ...toDest },
  { kind: "done", ...second, ...toDest },
];

export const destRecords: readonly JournalRecordOf<"dest">[] = [
  { kind: "reserved", ...first, ...fromSource },
  { kind: "prepared", ...first, ...fromSource, digest: withDisk },
  { kind: "refused", ...first, ...fromSource, reason },
  { kind: "reserved", ...second, generation: 1, ...fromSource },
  { kind: "prepared", ...second, ...fromSource, digest },
  { kind: "taken", ...second, ...fromSource },
  { kind: "complete", ...second, ...fromSource },
];

/** What version 2 has beside them: an attempt that was rolled back, and a witness. */
export const newerSourceRecords: readonly JournalRecordOf<"source">[] = [
  { kind: "begin", ...first, peer: "host-b", peerIncarnation: null },
  { kind: "kept", ...first, ...toDest },
  { kind: "begin", ...second, generation: 1, ...toDest },
  { kind: "handed-off", ...second, ...toDest, digest, witness: true },
];

export const newerDestRecords: readonly JournalRecordOf<"dest">[] = [
  { kind: "reserved", ...second, generation: 1, ...fromSource },
  { kind: "prepared", ...second, ...fromSource, digest, witness: true },
];
