// One run: two fresh hosts, a fresh guest, one move, and nothing left of any of them.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { messageOf } from "@vmferry/core";
import type { BenchCase } from "./cases.ts";
import { Closers } from "./closers.ts";
import { measureMove, type RunResult } from "./measure.ts";
import type { Method } from "./move.ts";
import { BenchNetwork } from "./network.ts";

export interface RunOptions {
  readonly benchCase: BenchCase;
  readonly method: Method;
  readonly qemu: string;
  readonly profileDirectory: string | null;
  /** Ends the run early: everything is undone at once, and the run rejects. */
  readonly signal: AbortSignal;
}

/** Rejects only with the reason of `signal`: a run that breaks is a result as well. */
export async function runOnce(options: RunOptions): Promise<RunResult> {
  const { signal } = options;
  const closers = new Closers();
  const undo = (): void => {
    void closers.closeAll();
  };
  signal.addEventListener("abort", undo, { once: true });
  try {
    return await prepareAndMeasure(options, closers);
  } catch (error) {
    signal.throwIfAborted();
    return { kind: "failed", reason: reasonOf(error) };
  } finally {
    signal.removeEventListener("abort", undo);
    await closers.closeAll();
  }
}

async function prepareAndMeasure(options: RunOptions, closers: Closers): Promise<RunResult> {
  const { benchCase, method, signal, ...rest } = options;
  const directory = await mkdtemp(join(tmpdir(), "run-"));
  closers.add(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }));
  const network = await BenchNetwork.open(benchCase.link);
  closers.add(() => network.close());
  signal.throwIfAborted();
  const move = await method.prepare({ benchCase, network, closers, directory, signal, ...rest });
  signal.throwIfAborted();
  return measureMove({ move, network, hasDisk: benchCase.guest.disk !== undefined });
}

/** With what caused it: that a request failed says nothing yet. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause === undefined ? messageOf(error) : `${messageOf(error)}: ${reasonOf(cause)}`;
}
