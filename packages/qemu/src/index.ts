export type { RamBlock, RamSection } from "./stream/ram-block.ts";
export { RamEncoder } from "./stream/ram-encoder.ts";
export { RamRecordDecoder, type RamRecordHandler } from "./stream/ram-record-decoder.ts";
export { ReturnPathDecoder } from "./stream/return-path-decoder.ts";
export {
  encodePong,
  encodeRecvBitmap,
  encodeReqPages,
  encodeResumeAck,
  encodeReturnPath,
  encodeShut,
  encodeSwitchoverAck,
} from "./stream/return-path-encoder.ts";
export { ReturnPathError, type ReturnPathMessage } from "./stream/return-path-message.ts";
export { COMMAND, decodeRamDiscard, type RamDiscard } from "./stream/stream-command.ts";
export { StreamDecoder } from "./stream/stream-decoder.ts";
export { StreamError, type StreamErrorDetail } from "./stream/stream-error.ts";
export { PAGE_BYTES } from "./stream/stream-format.ts";
export type { StreamHandler, StreamPhase } from "./stream/stream-grammar.ts";
export type { StreamLimits } from "./stream/stream-limits.ts";
export { QmpClient } from "./qmp/qmp-client.ts";
export { QmpError } from "./qmp/qmp-error.ts";
export { migrationPassOf, migrationStatusOf, type QmpEvent } from "./qmp/qmp-event.ts";
export type { MigrationStatus, QueryMigrate } from "./qmp/query-migrate.ts";
export { formatQemuVersion, type QemuVersion } from "./qmp/qemu-version.ts";
export { chooseAccelerator, probeKvmSupport } from "./guest/accelerator.ts";
export { adoptGuest } from "./guest/adopt-guest.ts";
export type { Accelerator, GuestDefinition } from "./guest/guest-definition.ts";
export { GuestError } from "./guest/guest-error.ts";
export { checkSocketPath } from "./guest/guest-directory.ts";
export { GuestProcess, type GuestIdentity } from "./guest/guest-process.ts";
export { launchGuest } from "./guest/launch-guest.ts";
export { inspectQemuBinary } from "./guest/qemu-binary.ts";
