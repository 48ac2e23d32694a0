// One guest, about to be moved by one method. What the methods have in common is this, so that one
// piece of code measures them all.

import { join } from "node:path";
import { systemClock } from "@vmferry/core";
import { GuestConsole } from "@vmferry/testkit";
import type { BenchCase } from "./cases.ts";
import type { Closers } from "./closers.ts";
import type { BenchNetwork } from "./network.ts";

export const MIB = 1024 * 1024;

export type MoveEnd =
  | { readonly kind: "completed"; readonly reported: object | null }
  | { readonly kind: "did-not-converge"; readonly reason: string }
  | { readonly kind: "failed"; readonly reason: string };

export interface AgentProcessId {
  readonly role: "source" | "dest";
  readonly pid: number;
}

/** A guest that works at the source, and a destination that is ready for it. */
export interface Move {
  readonly source: GuestConsole;
  readonly dest: GuestConsole;
  /** Empty where nothing but the two QEMUs takes part. */
  readonly agents: readonly AgentProcessId[];
  /** Where the dest's QEMU writes its faults; null where memory does not follow the guest. */
  readonly faultLog: string | null;
  /** Gives the command from which time is counted. */
  begin(): Promise<void>;
  /** Once begun: waits for the end as the method itself sees it. */
  ended(): Promise<MoveEnd>;
  /** Gives the move up. */
  cancel(): Promise<void>;
}

export interface MoveSetup {
  readonly benchCase: BenchCase;
  readonly network: BenchNetwork;
  /** Everything that is opened for the move has to be added. */
  readonly closers: Closers;
  /** The run's own, for files of any kind. */
  readonly directory: string;
  /** QEMU's path. */
  readonly qemu: string;
  /** Where agents write CPU profiles; null = they write none. */
  readonly profileDirectory: string | null;
  readonly signal: AbortSignal;
}

export interface Method {
  readonly name: string;
  /** Of QEMU itself: what the others are compared with. */
  readonly native: boolean;
  /** Moves guests of post-copy cases, and no others. */
  readonly postcopy?: true;
  readonly prepare: (setup: MoveSetup) => Promise<Move>;
}

/** A hundred a second. */
const SIGNS_AT_WORK = 200;
const BOOT_MS_MAX = 120_000;

export function faultLogOf({ directory }: Pick<MoveSetup, "directory">): string {
  return join(directory, "faults.log");
}

/** Follows a serial log until the run is undone. */
export function followConsole(path: string, closers: Closers): GuestConsole {
  const console = GuestConsole.open(path, { clock: systemClock });
  closers.add(() => {
    console.close();
    return Promise.resolve();
  });
  return console;
}

/** Waits until the guest has filled its memory and worked for two seconds. */
export async function waitUntilAtWork(console: GuestConsole): Promise<void> {
  await console.waitFor(({ latestReport }) => (latestReport?.sequence ?? 0) >= SIGNS_AT_WORK, {
    timeoutMs: BOOT_MS_MAX,
  });
}
