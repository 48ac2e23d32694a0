import { destination, pino, stdTimeFunctions, type DestinationStream, type Logger } from "pino";
import type { LogLevel } from "./config/agent-config.ts";

export interface LoggerOptions {
  readonly role: "source" | "dest";
  readonly level: LogLevel;
  /** Standard output, unless a test wants to read along. */
  readonly stream?: DestinationStream;
}

const SECRET_KEYS = ["authorization", "token", "peerToken", "apiToken"];
// pino's paths name one depth each: a secret can lie in the line itself, in an object of it
// (config.apiToken), or in the headers of one (request.headers.authorization).
const SECRET_PATHS = SECRET_KEYS.flatMap((key) => [key, `*.${key}`, `*.*.${key}`, `*.*.*.${key}`]);

export function createLogger({ role, level, stream = destination(1) }: LoggerOptions): Logger {
  return pino(
    {
      level,
      base: { role },
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: SECRET_PATHS, censor: "[redacted]" },
    },
    stream,
  );
}

export type { Logger } from "pino";
