export {
  LOG_LEVELS,
  type AgentConfig,
  type ConfigOf,
  type DestConfig,
  type LogLevel,
  type SourceConfig,
} from "./config/agent-config.ts";
export { formatListenAddress, type ListenAddress } from "./config/listen-address.ts";
export {
  ConfigError,
  loadConfig,
  type ConfigInputs,
  type LoadedConfig,
} from "./config/load-config.ts";
export type { PeerAddress } from "./config/peer-list.ts";
export { loadProcessConfig } from "./config/process-config.ts";
export { EventHub, type EventHubOptions, type SubscribeOptions } from "./events/event-hub.ts";
export type { EventDelivery, EventSubscription } from "./events/event-subscription.ts";
export { ManualClock } from "./events/manual-clock.ts";
export type { GuestService } from "./http/guest-service.ts";
export type { MigrationService } from "./http/migration-service.ts";
export type { Readiness, ReadinessReason } from "./http/readiness.ts";
export type { HttpServer } from "./http/http-server.ts";
export { createHttpServer, type HttpServerOptions } from "./http/server.ts";
export { createLogger, type Logger, type LoggerOptions } from "./log.ts";
export {
  COMPLETED_SOMEHOW,
  endedMigration,
  type EndedMigration,
} from "./migrations/ended-migration.ts";
export { openMigrations } from "./migrations/open-migrations.ts";
export {
  MigrationStore,
  type ListPage,
  type MigrationOutcome,
  type MigrationPatch,
  type MigrationStoreOptions,
} from "./migrations/migration-store.ts";
export {
  newMigrationObject,
  UNKNOWN_RESULT,
  type NewMigration,
} from "./migrations/new-migration-object.ts";
export { foldCells, type FoldCellsOptions } from "./migrations/fold-cells.ts";
export type { MapSource } from "./migrations/map-source.ts";
export { migrationLogger } from "./migrations/migration-logger.ts";
export { AgentMetrics } from "./metrics/agent-metrics.ts";
export { BufferPool } from "./buffer-pool.ts";
export { writeDurably } from "./durable-file.ts";
export { ReopenedImage } from "./guests/reopened-image.ts";
export {
  fails,
  inTime,
  passes,
  runChecks,
  skips,
  warns,
  type Checks,
  type Finding,
} from "./preflight/run-checks.ts";
export { allowing, refuseFailed } from "./preflight/preflight-refusal.ts";
export { ProblemError } from "./problem-error.ts";
export { asProblemCode } from "./as-problem-code.ts";
export { Guest } from "./guests/guest.ts";
export {
  GuestRegistry,
  type Admission,
  type GuestRegistryOptions,
} from "./guests/guest-registry.ts";
export type { DiskRecoveryPort, EarlierDisks, GivenBack } from "./guests/disk-recovery-port.ts";
export type { GuestBacking } from "./guests/launch-recorded.ts";
export type { Attachment, AttachPort } from "./guests/attach-guest.ts";
export { isSilent, type FoundGuest, type SilentGuest } from "./guests/earlier-guests.ts";
export { showSilentDoubt } from "./guests/silent-doubt.ts";
export type { GuestRecord } from "./guests/guest-record.ts";
export {
  acceptImages,
  discardImages,
  hasWholeImage,
  markImagesLeft,
  unmarkImagesLeft,
} from "./guests/image-marks.ts";
export { ControlChannel, type Channel } from "./peer/control-channel.ts";
export { Heartbeat } from "./peer/heartbeat.ts";
export { LinkOutage } from "./peer/link-outage.ts";
export { PeerError } from "./peer/peer-error.ts";
export { SentLog } from "./peer/sent-log.ts";
export { mayComeBack, SessionChannel, type MessageLink } from "./peer/session-channel.ts";
export { PageFileError } from "./page-file/page-file-error.ts";
export {
  asPageFileKey,
  pageFileKeyOf,
  pageFilePlace,
  type PageFileKey,
  type PageFilePlace,
} from "./page-file/page-file-key.ts";
export { cleanPageFiles, pageFilePath, removePageFile } from "./page-file/page-file-place.ts";
export { PageFileReader } from "./page-file/page-file-reader.ts";
export { PageFileWriter } from "./page-file/page-file-writer.ts";
export type { AppendedFile, PageFiles, ReadableFile } from "./page-file/page-files.ts";
export type { BatchPages } from "./page-file/stored-pages.ts";
export { SharedPageFiles } from "./page-file/shared-page-files.ts";
export { PageSet, type PageRun } from "./pages/page-set.ts";
export { decodeStoreIndex, encodeStoreIndex, type StoreIndex } from "./pages/store-index.ts";
export { PageHashes, type HashedBlock } from "./hashes/page-hashes.ts";
export { DiskHashes, type DiskHashesOptions } from "./hashes/disk-hashes.ts";
export { haltedText } from "./session/halted-text.ts";
export { failureOf, type Failure } from "./session/failure.ts";
export { Journal } from "./journal/journal-file.ts";
export { JournalError } from "./journal/journal-error.ts";
export { JournalShelf } from "./journal/journal-shelf.ts";
export type { JournalRecordOf } from "./journal/journal-record.ts";
export type { Decision } from "./witness/decision-codec.ts";
export { removeVoidImages } from "./guests/void-images.ts";
export { LateWitness, type WitnessPort } from "./witness/late-witness.ts";
export { StateKeeper, type AfterFailure } from "./session/state-keeper.ts";
export { SOFTWARE, VERSION } from "./software.ts";
export { runAgent } from "./run-agent.ts";
export { openHeldSockets } from "./open-held-sockets.ts";
export { prepareDirectories } from "./prepare-directories.ts";
export { openPeerTls } from "./tls/open-peer-tls.ts";
export { PeerTls } from "./tls/peer-tls.ts";
export { TlsError } from "./tls/tls-error.ts";
export { tlsRefusal } from "./tls/tls-refusal.ts";
export { agentReadiness } from "./agent-readiness.ts";
export { collectYoungGarbage, tuneGarbageCollection } from "./garbage.ts";
export { unzstdInto, zstdInto } from "./zstd/zstd.ts";
