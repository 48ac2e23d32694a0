/**
 * The control messages of protocol version 2: what each carries, with its limits. The session
 * belongs to one migration; messages about ownership still carry migration, epoch, generation and
 * incarnation, so that a repeated or late one can be told from the one that is meant.
 *
 *   source → dest   hello · offer | resume | probe · stunned · token · abort · received
 *   dest → source   hello · accept | reject | probe-result · credit · return-path · prepared · taken · running ·
 *                   complete · refused · received
 *   bulk connection bulk-hello (its first message), then bulk frames; received comes back
 *   page lane       pages-hello (its first message), then page messages and bulk frames
 *   blocks          blocks-hello (its first message), then messages about units of lazy disks
 */
import { Type, type Static, type TProperties, type TObject, type TLiteral } from "typebox";
import { GuestDefinitionSchema } from "../http/guest-definition.ts";
import { TRACE_PARENT_PATTERN } from "../http/trace-parent.ts";
import {
  BULK_CONNECTIONS_MAX,
  CREDIT_BYTES_MAX,
  DISK_BLOCK_BYTES_MAX,
  DISK_BLOCK_BYTES_MIN,
  DISK_BYTES_MAX,
  DISKS_MAX,
  FRAME_BYTES_MAX,
  PROBE_CHECKS_MAX,
  PROBE_TEXT_LENGTH_MAX,
  RETURN_PATH_BYTES_MAX,
  TEXT_LENGTH_MAX,
} from "./limits.ts";

const Count = (maximum: number): ReturnType<typeof Type.Integer> =>
  Type.Integer({ minimum: 0, maximum });
const Id = Type.String({ pattern: "^[0-9a-zA-Z-]{1,64}$" });
const Hex256 = Type.String({ pattern: "^[0-9a-f]{64}$" });
const Code = Type.String({ pattern: "^[a-z][a-z0-9-]{0,63}$" });
const Text = Type.String({ maxLength: TEXT_LENGTH_MAX });
const Accel = Type.Union([Type.Literal("kvm"), Type.Literal("tcg")]);
const ProbeText = Type.String({ maxLength: PROBE_TEXT_LENGTH_MAX });
const Epoch = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
/** Messages of a session, or frames of a bulk connection. */
const Received = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });

function message<K extends string, P extends TProperties>(
  kind: K,
  fields: P,
): TObject<{ kind: TLiteral<K> } & P> {
  return Type.Object({ kind: Type.Literal(kind), ...fields }, { additionalProperties: false });
}

/** Which stun of which migration, and from which incarnation of the sender. */
const ownership = { migrationId: Id, epoch: Epoch, generation: Epoch, incarnation: Id };

/** What the dest has to know of a disk beside its definition; in the order of the definition. */
const OfferedDisk = Type.Object(
  {
    sizeBytes: Type.Integer({ minimum: 512, maximum: DISK_BYTES_MAX }),
    /** Of them, bytes that take space at the source. */
    dataBytes: Count(DISK_BYTES_MAX),
    blockBytes: Type.Integer({ minimum: DISK_BLOCK_BYTES_MIN, maximum: DISK_BLOCK_BYTES_MAX }),
    /** Mode `shared`: what the file beside the image holds, by which the dest knows it for the same. */
    proof: Type.Union([Hex256, Type.Null()]),
    /** It follows the guest; only to a dest that names the feature `lazy-disk`. */
    lazy: Type.Optional(Type.Literal(true)),
  },
  { additionalProperties: false },
);

/** What a dest has looked at for a probe. */
const ProbeCheck = Type.Object(
  {
    name: Code,
    status: Type.Union([
      Type.Literal("pass"),
      Type.Literal("warn"),
      Type.Literal("fail"),
      Type.Literal("skip"),
    ]),
    detail: ProbeText,
    hint: Type.Union([ProbeText, Type.Null()]),
  },
  { additionalProperties: false },
);

/** One a disk that is copied before the hand-over, in the order of the definition. */
const DiskDigests = Type.Array(Hex256, { maxItems: DISKS_MAX });

export const ControlSchemas = {
  hello: message("hello", {
    version: Count(65_535),
    versionMin: Count(65_535),
    features: Type.Array(Code, { maxItems: 64 }),
    software: Type.String({ maxLength: 64 }),
    incarnation: Id,
  }),
  offer: message("offer", {
    migrationId: Id,
    epoch: Epoch,
    guest: GuestDefinitionSchema,
    /** Resolved at the source: `auto` must not mean two things. */
    accel: Accel,
    uuid: Type.String({ pattern: "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$" }),
    qemuVersion: Type.String({ maxLength: 64 }),
    bulkConnections: Type.Integer({ minimum: 1, maximum: BULK_CONNECTIONS_MAX }),
    disks: Type.Array(OfferedDisk, { maxItems: DISKS_MAX }),
    /** Seed of the hashes of pages and disk blocks, so that a guest cannot prepare collisions. */
    hashSeed: Type.String({ pattern: "^[0-9a-f]{16}$" }),
    /** Of the source's journal: whoever shows it later is the one that offered. */
    incarnation: Id,
    /** Some of memory may have to come after the hand-over. */
    postCopy: Type.Boolean(),
    /** Where the source has a witness: what it has written there, by which the dest knows it. */
    witness: Type.Union([Hex256, Type.Null()]),
    /** Opens the page file of the migration; only to a dest that names the feature `page-file`. */
    pageFileKey: Type.Optional(Hex256),
    /**
     * Why the dest cannot launch a QEMU for this guest and needs one that was prepared; only to a
     * dest that names the feature `attached`.
     */
    launchRefusal: Type.Optional(Text),
    /** Of the request that began it; only to a dest that names the feature `trace`. */
    traceparent: Type.Optional(Type.String({ pattern: TRACE_PARENT_PATTERN })),
  }),
  accept: message("accept", {
    migrationId: Id,
    epoch: Epoch,
    /** Bulk connections prove with it that they belong to this session. */
    session: Hex256,
    /** Less than one frame would be a link on which nothing ever moves. */
    creditBytes: Type.Integer({ minimum: FRAME_BYTES_MAX, maximum: CREDIT_BYTES_MAX }),
    qemuVersion: Type.String({ maxLength: 64 }),
    /** Why its QEMU cannot take memory after the hand-over; empty where it can, or need not. */
    postCopyRefusal: Text,
    /** The dest sees the source's witness, and will not take the guest without its word. */
    witness: Type.Boolean(),
  }),
  reject: message("reject", { code: Code, text: Text }),
  /** Feature `probe`, in the place of an offer: could the guest come? Nothing is begun. */
  probe: message("probe", {
    /** Names the proofs, and no migration. */
    probeId: Id,
    guest: GuestDefinitionSchema,
    accel: Accel,
    disks: Type.Array(OfferedDisk, { maxItems: DISKS_MAX }),
    witness: Type.Union([Hex256, Type.Null()]),
    /** As in `offer`; only to a dest that names the feature `probe-attached`. */
    launchRefusal: Type.Optional(Text),
  }),
  "probe-result": message("probe-result", {
    qemuVersion: Type.String({ maxLength: 64 }),
    /** Why its QEMU could not take memory after a hand-over; empty where it could. */
    postCopyRefusal: Text,
    /** The dest's date, when it sent this. */
    dateMs: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    checks: Type.Array(ProbeCheck, { maxItems: PROBE_CHECKS_MAX }),
  }),
  /** After a lost link or a restart: the hand-over that this connection goes on with. */
  resume: message("resume", {
    ...ownership,
    /** The session that goes on where it was; null where only the ownership is left to be asked for. */
    session: Type.Union([Hex256, Type.Null()]),
    received: Received,
  }),
  /** What has come so far of the peer's messages, or of the frames of this bulk connection. */
  received: message("received", { received: Received }),
  "bulk-hello": message("bulk-hello", {
    version: Count(65_535),
    migrationId: Id,
    session: Hex256,
    index: Count(BULK_CONNECTIONS_MAX - 1),
  }),
  /** The first message of a page lane: which hand-over it serves, and which of the two it is. */
  "pages-hello": message("pages-hello", {
    version: Count(65_535),
    ...ownership,
    lane: Type.Union([Type.Literal("urgent"), Type.Literal("background")]),
    /** Lanes of a later attempt take the place of earlier ones. */
    attempt: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
  }),
  /** The first message of a connection of blocks: which hand-over it serves. */
  "blocks-hello": message("blocks-hello", {
    version: Count(65_535),
    ...ownership,
    /** One of a later attempt takes the place of an earlier one. */
    attempt: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
  }),
  credit: message("credit", { bytes: Count(CREDIT_BYTES_MAX) }),
  "return-path": message("return-path", {
    bytes: Type.Unsafe<Uint8Array>({ bytesMax: RETURN_PATH_BYTES_MAX }),
  }),
  stunned: message("stunned", { ...ownership, ramDigest: Hex256, diskDigests: DiskDigests }),
  prepared: message("prepared", { ...ownership, ramDigest: Hex256, diskDigests: DiskDigests }),
  token: message("token", ownership),
  taken: message("taken", ownership),
  running: message("running", ownership),
  complete: message("complete", ownership),
  refused: message("refused", { ...ownership, code: Code, text: Text }),
  abort: message("abort", { ...ownership, code: Code, text: Text }),
};

export type ControlKind = keyof typeof ControlSchemas;
export type ControlMessageOf<K extends ControlKind> = Static<(typeof ControlSchemas)[K]>;
export type ControlMessage = { [K in ControlKind]: ControlMessageOf<K> }[ControlKind];
