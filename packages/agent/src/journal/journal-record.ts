/**
 * What a journal says, for each side in the order in which it happens:
 *
 *   source   begin → handed-off → released → done
 *              │         └──────────┴──→ reclaimed
 *              └→ kept
 *   dest     reserved → prepared → taken → complete
 *                └─────────┴─────────┴──→ refused
 *
 * Each record is written before the act that it names, and is enough by itself: whoever recovers
 * needs the last one alone. All of them name the stun that they are about, so that `epoch` is the
 * one that the dest owns or would own; a source that reclaims goes on in the epoch after it.
 */
import { Type, type Static, type TObject, type TProperties } from "typebox";
import { Compile } from "typebox/compile";
import { assert } from "@vmferry/core";
import { limits, NAME_PATTERN, type MigrationRole } from "@vmferry/protocol";

/**
 * Of the payloads. A record has the oldest version that can say it, and keeps it: 2 brought `kept`
 * and `witness`.
 */
export const RECORD_VERSION = 2;

const Id = Type.String({ pattern: "^[0-9a-zA-Z-]{1,64}$" });
const Count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
/** A code of the problem catalogue, or a newer one. */
const Reason = Type.String({ pattern: "^[a-z][a-z0-9-]{0,63}$" });
/** As `stateDigest` writes it: of the memory, and of each disk. */
const Digest = Type.String({
  pattern: `^[0-9a-f]{64}(:[0-9a-f]{64}){0,${limits.DISKS_MAX}}$`,
});
const stun = { migrationId: Id, epoch: Count, generation: Count };

function content<P extends TProperties>(fields: P): TObject<P> {
  return Type.Object(fields, { additionalProperties: false });
}

/** `peer`: the configured name of the dest, whom a restarted source has to ask. */
const atSource = { ...stun, peer: Type.String({ pattern: NAME_PATTERN }) };
/** The incarnation that the peer's messages carry; only that one is believed. */
const known = { peerIncarnation: Id };
/** Null before the peer has said anything, and where somebody else decided. */
const maybeKnown = { peerIncarnation: Type.Union([Id, Type.Null()]) };
/** Where a witness has the last word about this stun. */
const witnessed = { witness: Type.Optional(Type.Literal(true)) };

export const RecordSchemas = {
  source: {
    begin: content({ ...atSource, ...maybeKnown }),
    kept: content({ ...atSource, ...maybeKnown }),
    "handed-off": content({ ...atSource, ...known, digest: Digest, ...witnessed }),
    released: content({ ...atSource, ...known }),
    reclaimed: content({ ...atSource, ...maybeKnown, reason: Reason }),
    done: content({ ...atSource, ...maybeKnown }),
  },
  dest: {
    reserved: content({ ...stun, ...known }),
    prepared: content({ ...stun, ...known, digest: Digest, ...witnessed }),
    taken: content({ ...stun, ...known }),
    complete: content({ ...stun, ...known }),
    refused: content({ ...stun, ...known, reason: Reason }),
  },
};

type RecordsOf<S extends Readonly<Record<string, TObject>>> = {
  [K in keyof S]: { readonly kind: K } & Readonly<Static<S[K]>>;
}[keyof S];

export interface JournalRecords {
  readonly source: RecordsOf<typeof RecordSchemas.source>;
  readonly dest: RecordsOf<typeof RecordSchemas.dest>;
}

export type JournalRecordOf<R extends MigrationRole> = JournalRecords[R];
export type JournalRecord = JournalRecordOf<MigrationRole>;
export type RecordKind = JournalRecord["kind"];

/** In the file. A number never changes its meaning; 0 stays invalid. */
const TYPE_NUMBERS: Readonly<Record<MigrationRole, Readonly<Partial<Record<RecordKind, number>>>>> =
  {
    source: { begin: 1, "handed-off": 2, released: 3, reclaimed: 4, done: 5, kept: 6 },
    dest: { reserved: 17, prepared: 18, taken: 19, complete: 20, refused: 21 },
  };

const schemas: Readonly<Record<string, TObject>> = {
  ...RecordSchemas.source,
  ...RecordSchemas.dest,
};
const validators = new Map(
  Object.entries(schemas).map(([kind, schema]) => [kind, Compile(schema)]),
);

export interface EncodedRecord {
  readonly version: number;
  readonly type: number;
  readonly payload: Buffer;
}

/** JSON, because a person may have to read it; in the order of the schema, so that it has one form. */
export function encodeRecord(role: MigrationRole, record: JournalRecord): EncodedRecord {
  const { kind, ...fields } = record;
  const type = TYPE_NUMBERS[role][kind];
  assert(type !== undefined, `the ${role} writes no record ${kind}`);
  assert(isWellFormed(kind, fields), `a record ${kind} that is written can be read`);
  const ordered = Object.keys(schemas[kind]!.properties).map(
    (key) => [key, (fields as Readonly<Record<string, unknown>>)[key]] as const,
  );
  const payload = Buffer.from(JSON.stringify(Object.fromEntries(ordered)));
  return { version: versionOf(record), type, payload };
}

/** Of a version up to `RECORD_VERSION`. Null for what is no record of this role. */
export function decodeRecord<R extends MigrationRole>(
  role: R,
  { version, type, payload }: EncodedRecord,
): JournalRecordOf<R> | null {
  const numbers = Object.entries(TYPE_NUMBERS[role]);
  const kind = numbers.find(([, number]) => number === type)?.[0];
  const fields = parseObject(payload);
  if (kind === undefined || fields === null || !isWellFormed(kind, fields)) return null;
  const record = { kind, ...fields } as JournalRecordOf<R>;
  return version === versionOf(record) ? record : null;
}

function versionOf(record: JournalRecord): number {
  return record.kind === "kept" || "witness" in record ? 2 : 1;
}

/** Begins an attempt; the attempt before is over then. */
export function beginsAttempt({ kind }: JournalRecord): boolean {
  return kind === "begin" || kind === "reserved";
}

/** What came before it does not matter any more, and nothing is in doubt. */
export function isSettled({ kind }: JournalRecord): boolean {
  switch (kind) {
    // The guest is still the source's, whatever became of the attempt.
    case "begin":
    case "kept":
    case "reclaimed":
    case "done":
    case "complete":
    case "refused":
      return true;
    case "handed-off":
    case "released":
    case "reserved":
    case "prepared":
    case "taken":
      return false;
  }
}

function isWellFormed(kind: string, fields: object): boolean {
  return validators.get(kind)?.Check(fields) === true;
}

function parseObject(payload: Buffer): object | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(payload);
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : null;
  } catch {
    // Its checksum was right: another program wrote it, and the caller says so.
    return null;
  }
}
