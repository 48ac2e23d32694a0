export {
  parseConsoleLine,
  type ConsoleMessage,
  type GuestCounters,
  type GuestLatency,
} from "./console-line.ts";
export {
  GuestConsole,
  GuestConsoleError,
  type GuestReport,
  type SignOfLife,
} from "./guest-console.ts";
export {
  judgeHandOver,
  type ConsoleLine,
  type HandOverFinding,
  type HandOverFindingCode,
  type HandOverVerdict,
} from "./judge-hand-over.ts";
export {
  AgentProcess,
  compileAgents,
  type AgentProcessOptions,
  type LogLine,
  type SpawnedAgent,
} from "./agent-process.ts";
export { ApiClient, ApiProblem } from "./api-client.ts";
export { writeDiskImage, type DiskImageContent } from "./disk-image.ts";
export {
  GUEST_CACHE,
  Lab,
  type AgentLife,
  type DemoGuest,
  type GuestDisks,
  type LabOptions,
} from "./lab.ts";
export { EventFollower } from "./event-follower.ts";
export { bulkAt, controlOf, FaultProxy, pagesAt } from "./fault-proxy.ts";
export { peakRssBytes, qemusUnder, socketHoldersUnder } from "./process-table.ts";
export { TlsDirectory } from "./tls-directory.ts";
