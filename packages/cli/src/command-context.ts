import type { AgentApi } from "./api/agent-api.ts";
import type { LineOutput } from "./render/progress-display.ts";

/** What a command works with: all that it knows of the process that it runs in. */
export interface CommandContext {
  readonly api: AgentApi;
  readonly stdout: LineOutput;
  readonly stderr: LineOutput;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Calls back at each Ctrl-C, in place of ending the process, until the result is called. */
  onInterrupt(listener: () => void): () => void;
}
