/** For tests of checks: a guest, and what a dest answers. */
import {
  fillGuestDefinition,
  type ControlMessageOf,
  type MigrationRequest,
} from "@vmferry/protocol";
import type { QmpClient } from "@vmferry/qemu";
import type { PeerAnswer } from "./peer-answer.ts";
import type { PreflightGuest } from "./preflight-guest.ts";

type Answered = Extract<PeerAnswer, { kind: "answered" }>;
type Result = ControlMessageOf<"probe-result">;

export const sampleRequest: MigrationRequest = {
  guest: "web1",
  destination: "host-b",
  mode: "auto",
  limits: { bandwidthBytesPerSecond: null, downtimeMsMax: 300, totalMsMax: null },
  onStall: "throttle",
  disk: { tracker: "bitmap", writes: "mirror", handover: "synced" },
  fallback: "none",
  allowUnsafe: [],
};

export interface SampleGuestOptions {
  readonly accel?: "kvm" | "tcg";
  readonly cpu?: string;
  readonly qemuMajor?: number;
  readonly blockedReasons?: readonly string[];
  readonly disks?: PreflightGuest["definition"]["disks"];
}

export function sampleGuest(options: SampleGuestOptions = {}): PreflightGuest {
  const {
    accel = "tcg",
    cpu = "qemu64",
    qemuMajor = 10,
    blockedReasons = [],
    disks = [],
  } = options;
  const definition = fillGuestDefinition({
    ...{ name: "web1", machine: "pc-q35-7.2", memoryBytes: 2 ** 29, cpu },
    boot: { kernel: "vmlinuz" },
    disks: disks.map((disk) => ({ ...disk })),
  });
  const qmp = {
    version: { major: qemuMajor, minor: 0, micro: 2 },
    execute: (command: string) =>
      command === "query-migrate"
        ? Promise.resolve({ status: "none", blockedReasons })
        : Promise.reject(new Error(`${command} is no command of a preflight`)),
  } as unknown as Pick<QmpClient, "version" | "execute">;
  return { definition, accel, uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8", attachment: null, qmp };
}

export function sampleResult(result: Partial<Result> = {}): Result {
  return {
    kind: "probe-result",
    ...{ qemuVersion: "10.0.2", postCopyRefusal: "", dateMs: 0, checks: [] },
    ...result,
  };
}

export function sampleAnswer(
  answer: Partial<Omit<Answered, "kind" | "result">> & { readonly result?: Partial<Result> } = {},
): Answered {
  const { version = 2, roundTripMs = 1, clockAheadMs = 0, result } = answer;
  return { kind: "answered", version, roundTripMs, clockAheadMs, result: sampleResult(result) };
}
