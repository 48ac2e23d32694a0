import { AgentError } from "@vmferry/core";

export type GuestErrorDetail =
  | { readonly code: "guest-definition-invalid"; readonly field: string; readonly reason: string }
  | { readonly code: "cpu-model-not-migratable"; readonly cpu: string }
  | { readonly code: "tcg-needs-qemu-10"; readonly qemuVersion: string }
  | { readonly code: "kvm-not-available"; readonly reason: string }
  | { readonly code: "image-not-found"; readonly name: string; readonly reason: string }
  | { readonly code: "image-outside-directory"; readonly name: string }
  | {
      readonly code: "socket-path-too-long";
      readonly path: string;
      readonly pathBytes: number;
      readonly pathBytesMax: number;
      /** What the operator has to shorten. */
      readonly setting: string;
    }
  | { readonly code: "guest-directory-unsafe"; readonly directory: string; readonly reason: string }
  | { readonly code: "guest-directory-in-use"; readonly directory: string }
  | { readonly code: "qemu-not-usable"; readonly binary: string; readonly reason: string }
  | {
      readonly code: "qemu-exited";
      readonly exitCode: number | null;
      readonly signal: string | null;
      readonly lastLines: readonly string[];
    }
  | { readonly code: "qemu-start-timeout"; readonly timeoutMs: number }
  | { readonly code: "qemu-did-not-exit"; readonly pid: number; readonly timeoutMs: number }
  | { readonly code: "monitor-not-usable"; readonly path: string; readonly reason: string }
  | { readonly code: "guest-gone"; readonly pid: number }
  | { readonly code: "guest-not-this-qemu"; readonly pid: number; readonly reason: string };

/** Every expected failure of defining, starting, finding and ending a guest's QEMU. */
export class GuestError extends AgentError<GuestErrorDetail> {}
