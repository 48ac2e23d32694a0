export { AgentApi } from "./api/agent-api.ts";
export type { Migration, MigrationEvent } from "./api/migration.ts";
export { followMigration } from "./follow/follow-migration.ts";
export { ProgressDisplay } from "./render/progress-display.ts";
export { summaryLine } from "./render/summary-line.ts";
export { formatBytes, formatDuration } from "./units/format-amount.ts";
export { parseDurationMs } from "./units/parse-duration.ts";
export { parseBytesPerSecond } from "./units/parse-rate.ts";
