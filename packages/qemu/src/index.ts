export {
  encodeBitmapRequest,
  encodeEof,
  encodePackageEdges,
  encodePackageHeader,
  encodePing,
  encodePostcopyAdvise,
  encodePostcopyResume,
  encodeRamDiscards,
  PACKAGE_PING,
} from "./stream/command-encoder.ts";
export { DeviceStateTail } from "./stream/device-state-tail.ts";
export type { RamBlock, RamSection } from "./stream/ram-block.ts";
export { RamEncoder } from "./stream/ram-encoder.ts";
export { RamRecordDecoder, type RamRecordHandler } from "./stream/ram-record-decoder.ts";
export { pageRequestOf, receivedBitmapBytes, type PageRequest } from "./stream/page-request.ts";
export { PreemptDecoder } from "./stream/preempt-decoder.ts";
export { ReturnPathDecoder, type ReturnPathLimits } from "./stream/return-path-decoder.ts";
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
export { PAGE_BYTES, RECORD } from "./stream/stream-format.ts";
export type { StreamHandler, StreamPhase } from "./stream/stream-grammar.ts";
export type { StreamLimits } from "./stream/stream-limits.ts";
export { QmpClient } from "./qmp/qmp-client.ts";
export { QmpError } from "./qmp/qmp-error.ts";
export { StandbyMonitor, type OobSession } from "./qmp/standby-monitor.ts";
export {
  blockJobStateOf,
  migrationPassOf,
  migrationStatusOf,
  type BlockJobState,
  type QmpEvent,
} from "./qmp/qmp-event.ts";
export type { MigrationStatus, QueryMigrate } from "./qmp/query-migrate.ts";
export { formatQemuVersion, type QemuVersion } from "./qmp/qemu-version.ts";
export { chooseAccelerator, probeKvmSupport } from "./guest/accelerator.ts";
export { adoptGuest, findGuest } from "./guest/adopt-guest.ts";
export { attachQemu } from "./guest/attach-qemu.ts";
export { describeQemu, type DescribedDisk, type DescribedQemu } from "./guest/describe-qemu.ts";
export { launchDifferences } from "./guest/launch-likeness.ts";
export type { Accelerator, GuestDefinition } from "./guest/guest-definition.ts";
export { GuestError } from "./guest/guest-error.ts";
export { checkSocketPath } from "./guest/guest-directory.ts";
export { guestRefusals, type GuestRefusalInput } from "./guest/guest-refusals.ts";
export { GuestProcess, type GuestIdentity } from "./guest/guest-process.ts";
export { hasFileOpen } from "./guest/open-files.ts";
export { launchGuest } from "./guest/launch-guest.ts";
export { askQemu, type QemuAnswers } from "./guest/ask-qemu.ts";
export { inspectQemuBinary } from "./guest/qemu-binary.ts";
export {
  diskNodeNames,
  protocolNode,
  qcow2Node,
  rawNode,
  type DiskBacking,
  type DiskNodeNames,
  type ProtocolNode,
  type RawNode,
} from "./qmp/block-nodes.ts";
export type { QmpWaitOptions } from "./qmp/event-waiters.ts";
export type { MigrationCapability, SetMigrationParameters } from "./qmp/qmp-arguments.ts";
export type { QmpCloseReason, QmpConnectOptions, QmpExecuteOptions } from "./qmp/qmp-client.ts";
export type { QmpArguments, QmpCommand, QmpResult } from "./qmp/qmp-commands.ts";
export type { QmpErrorDetail } from "./qmp/qmp-error.ts";
export type {
  BlockDevice,
  BlockNode,
  MemorySize,
  QmpCpu,
  QmpMachine,
  QueryMigrateParameters,
  QueryStatus,
  RunState,
} from "./qmp/qmp-results.ts";
export type { MigrationRam } from "./qmp/query-migrate.ts";
export { UNIX_SOCKET_PATH_BYTES_MAX } from "./qmp/unix-socket-path.ts";
export type { KvmSupport } from "./guest/accelerator.ts";
export type { AdoptGuestOptions } from "./guest/adopt-guest.ts";
export type { GuestExit } from "./guest/exit-watch.ts";
export {
  checkGuestDefinition,
  type DiskMode,
  type GuestBoot,
  type GuestDisk,
  type RequestedAccelerator,
} from "./guest/guest-definition.ts";
export { guestPaths, type GuestPaths } from "./guest/guest-directory.ts";
export type { GuestErrorDetail } from "./guest/guest-error.ts";
export { resolveImage, type ImagePath } from "./guest/image-path.ts";
export type { LaunchGuestOptions } from "./guest/launch-guest.ts";
export { qemuArguments, type QemuArgumentsInput } from "./guest/qemu-arguments.ts";
export type { MachineType, QemuBinary } from "./guest/qemu-binary.ts";
