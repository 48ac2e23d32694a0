export { sameStun, type StunRef } from "./handover/stun-ref.ts";
export { OwnershipError } from "./handover/ownership-error.ts";
export {
  mayRollBack,
  nextSourceOwnership,
  type SourceAction,
  type SourceEvent,
  type SourceOwnership,
  type SourceRecord,
  type SourceStep,
  type StunAnswer,
} from "./handover/source-ownership.ts";
export {
  nextDestOwnership,
  type DestAction,
  type DestEvent,
  type DestOwnership,
  type DestRecord,
  type DestStep,
} from "./handover/dest-ownership.ts";
export { recoverSource, type SourceFound } from "./handover/recover-source.ts";
export { recoverDest, type DestFound } from "./handover/recover-dest.ts";
export { seenQemu, type SeenQemu } from "./handover/seen-qemu.ts";
export {
  deviceStateBytesOf,
  FrameEncoding,
  FrameKind,
  costsCredit,
  openFrame,
  RunTable,
  sealFrame,
  ZERO_RUN,
  type FrameHeader,
} from "./wire/bulk-frame.ts";
export { DiskOperation, ExtentTable, putExtent, type DiskExtent } from "./wire/disk-frame.ts";
export {
  ASK_UNITS_MAX,
  ASKED_UNITS_MAX,
  BlockContent,
  decodeBlockAnswer,
  decodeBlockQuestion,
  encodeBlockMessage,
  KEPT_RUNS_MAX,
  Urgency,
  type BlockAnswer,
  type BlocksMessage,
  type UnitRun,
} from "./wire/block-message.ts";
export { decodeControl, encodeControl } from "./wire/control-codec.ts";
export type { ControlKind, ControlMessage, ControlMessageOf } from "./wire/control-messages.ts";
export { agree, ourHello, type Agreement } from "./wire/hello.ts";
export {
  decodePageMessage,
  encodePageMessage,
  isPageMessage,
  type MissingRun,
  type PageLaneName,
  type PageMessage,
  type PageMessageOf,
} from "./wire/page-message.ts";
export * as limits from "./wire/limits.ts";
export { stateDigest } from "./wire/state-digest.ts";
export { CloseCode, closeCodeOf, ProtocolError, violation } from "./wire/protocol-error.ts";
export {
  EventSchema,
  EventTypeSchema,
  isFinalEvent,
  type AgentEvent,
  type EventBody,
  type EventType,
} from "./http/event.ts";
export { GuestAttachSchema, type GuestAttach } from "./http/guest-attach.ts";
export {
  fillGuestDefinition,
  GuestDefinitionSchema,
  type GuestBoot,
  type GuestDefinition,
  type GuestDefinitionInput,
  type GuestDisk,
} from "./http/guest-definition.ts";
export {
  GuestListSchema,
  GuestObjectSchema,
  type GuestAttached,
  type GuestObject,
  type GuestObjectDisk,
  type GuestState,
} from "./http/guest-object.ts";
export type { Immutable } from "./http/immutable.ts";
export {
  MAP_CELLS_MAX,
  MAP_LETTERS,
  MigrationMapSchema,
  UNKNOWN_MAP,
  type MapArea,
  type MapLetter,
  type MigrationMap,
} from "./http/migration-map.ts";
export {
  isFinalPhase,
  MigrationListSchema,
  MigrationObjectSchema,
  type FinalMigrationPhase,
  type MigrationDisk,
  type MigrationError,
  type MigrationFallback,
  type MigrationFaults,
  type MigrationList,
  type MigrationObject,
  type MigrationPhase,
  type MigrationRam,
  type MigrationResult,
  type MigrationRole,
  type MigrationWire,
} from "./http/migration-object.ts";
export {
  MigrationPatchSchema,
  MigrationRequestSchema,
  MigrationResolveSchema,
  type MigrationDiskOptions,
  type MigrationLimits,
  type MigrationLimitsPatch,
  type MigrationRequest,
  type MigrationRequestInput,
  type MigrationResolve,
} from "./http/migration-request.ts";
export {
  CheckSchema,
  OVERRIDABLE_CHECKS,
  PreflightReportSchema,
  type Check,
  type OverridableCheck,
  type PreflightReport,
} from "./http/preflight.ts";
export {
  makeProblem,
  PROBLEM_CONTENT_TYPE,
  ProblemSchema,
  type FieldError,
  type Problem,
} from "./http/problem.ts";
export {
  isProblemCode,
  problemCodes,
  type ProblemCode,
  type ProblemKind,
} from "./http/problem-codes.ts";
export { parseTraceParent, traceIdOf } from "./http/trace-parent.ts";
export { NAME_PATTERN } from "./http/schema-parts.ts";
