import { AgentError } from "@vmferry/core";

export type QmpErrorDetail =
  | { readonly code: "qmp-connect-failed"; readonly path: string; readonly systemCode: string }
  | { readonly code: "qmp-malformed"; readonly reason: string }
  | { readonly code: "qmp-line-too-long"; readonly bytesMax: number }
  | { readonly code: "qmp-protocol"; readonly reason: string }
  | { readonly code: "qmp-unexpected-shape"; readonly where: string; readonly field: string }
  | { readonly code: "qmp-timeout"; readonly waitingFor: string; readonly timeoutMs: number }
  | { readonly code: "qmp-closed"; readonly waitingFor: string }
  | {
      readonly code: "qmp-command-failed";
      readonly command: string;
      readonly errorClass: string;
      readonly description: string;
    }
  | { readonly code: "qmp-command-not-allowed"; readonly command: string }
  | {
      readonly code: "qmp-arguments-not-allowed";
      readonly command: string;
      readonly reason: string;
    }
  | { readonly code: "qmp-too-many-pending"; readonly pendingMax: number }
  | { readonly code: "qmp-listener-failed" };

/** Every expected failure of a QMP session. `waitingFor` is a command, `greeting` or `event`. */
export class QmpError extends AgentError<QmpErrorDetail> {}
