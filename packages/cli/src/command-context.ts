import type { AgentApi } from "./api/agent-api.ts";
import type { Environment } from "./api/api-token.ts";
import type { LineOutput } from "./render/progress-display.ts";

/** All that a command that asks no agent knows of the process that it runs in. */
export interface LocalContext {
  readonly stdout: LineOutput;
  readonly stderr: LineOutput;
  readonly environment: Environment;
}

/** What a command that asks an agent works with. */
export interface CommandContext extends LocalContext {
  readonly api: AgentApi;
  /** Calls back at each Ctrl-C, in place of ending the process, until the result is called. */
  onInterrupt(listener: () => void): () => void;
}
