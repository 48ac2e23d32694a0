/** What each message of the dest is for. */
import { asProblemCode, type Failure } from "@vmferry/agent";
import type { ControlMessage } from "@vmferry/protocol";
import type { Cargo } from "./cargo.ts";
import type { ProgressReport } from "./progress-report.ts";
import { SessionError } from "./session-error.ts";
import type { SourceHandOver } from "./source-hand-over.ts";

export interface MessageTargets {
  readonly cargo: Cargo;
  readonly report: ProgressReport;
  readonly ownership: SourceHandOver;
  /** True when the refusal is the answer to a hand-over, not a failure like others. */
  readonly isAnswer: (failure: Failure) => boolean;
  readonly fail: (error: SessionError) => void;
}

export function deliver(
  message: ControlMessage,
  { cargo, report, ownership, isAnswer, fail }: MessageTargets,
): void {
  switch (message.kind) {
    case "credit":
      cargo.acknowledged(message.bytes);
      return;
    case "return-path":
      cargo.returnPath(message.bytes);
      return;
    case "running":
      report.running();
      return;
    case "refused": {
      const code = asProblemCode(message.code, "peer-refused");
      if (isAnswer({ code, detail: message.text })) ownership.answered(message);
      else fail(new SessionError(message.text, { code }));
      return;
    }
    case "prepared":
    case "taken":
    case "complete":
      ownership.answered(message);
      return;
    default:
      fail(new SessionError(`the dest sent ${message.kind}`, { code: "protocol-violation" }));
  }
}
