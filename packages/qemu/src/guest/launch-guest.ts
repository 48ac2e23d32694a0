// Starting a guest's QEMU. It belongs to nobody once it runs: a session of its own, so that Ctrl-C
// in the agent's terminal does not reach it; standard streams on /dev/null and a log file, so that
// it does not notice when the agent goes; none of the agent's environment, which holds secrets.

import { spawn, type ChildProcess } from "node:child_process";
import { open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { assert, Deferred } from "@vmferry/core";
import type { DiskBacking } from "../qmp/block-nodes.ts";
import { QmpClient } from "../qmp/qmp-client.ts";
import { QmpError } from "../qmp/qmp-error.ts";
import { StandbyMonitor } from "../qmp/standby-monitor.ts";
import { chooseAccelerator, probeKvmSupport } from "./accelerator.ts";
import { watchChild, type ExitWatch, type GuestExit } from "./exit-watch.ts";
import { checkGuestDefinition, type GuestDefinition } from "./guest-definition.ts";
import { guestPaths, prepareGuestDirectory, type GuestPaths } from "./guest-directory.ts";
import { GuestError } from "./guest-error.ts";
import { GuestProcess, type GuestIdentity } from "./guest-process.ts";
import { guestRefusals } from "./guest-refusals.ts";
import { resolveImage } from "./image-path.ts";
import { readLogTail } from "./log-tail.ts";
import { readProcStat } from "./proc-stat.ts";
import { qemuArguments, type GuestArgumentPaths } from "./qemu-arguments.ts";
import { inspectQemuBinary } from "./qemu-binary.ts";

export interface LaunchGuestOptions {
  /** A path, or a name to be found by PATH. */
  readonly binary: string;
  readonly definition: GuestDefinition;
  /** Of this guest alone; made if absent. */
  readonly directory: string;
  readonly imageDirectory: string;
  /** True: stopped, waiting for a migration. */
  readonly incoming: boolean;
  /** By disk id: disks that stand on something else than their image. */
  readonly diskBackings?: ReadonlyMap<string, DiskBacking>;
  readonly sandbox?: boolean;
  /** From the start of the process until QMP answers. */
  readonly timeoutMs: number;
  readonly commandTimeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Called last before QEMU is started, in its directory: whoever has to find it again writes it down here. */
  readonly beforeStart?: () => Promise<void>;
}

interface StartedQemu {
  readonly child: ChildProcess;
  readonly identity: GuestIdentity;
  readonly exitWatch: ExitWatch;
  /** The size of the log before this run. */
  readonly logFromBytes: number;
}

const CONNECT_INTERVAL_MS = 10;

/**
 * Starts a guest and resolves when its QMP answers. Rejects with a GuestError, or the reason of
 * `signal`; in either case no QEMU is left behind.
 */
export async function launchGuest(options: LaunchGuestOptions): Promise<GuestProcess> {
  const { definition, signal } = options;
  checkGuestDefinition(definition);
  const binary = await inspectQemuBinary(options.binary);
  const accel = chooseAccelerator(definition.accel, await probeKvmSupport());
  const refusal = guestRefusals({ definition, accel, qemuVersion: binary.version })[0];
  if (refusal !== undefined) throw refusal;
  const paths = guestPaths(options.directory);
  const qemuCommandLine = qemuArguments({
    definition,
    accel,
    paths: await argumentPaths(options, paths),
    incoming: options.incoming,
    sandbox: options.sandbox ?? true,
  });
  await prepareGuestDirectory(paths);
  await allDone([
    options.beforeStart?.() ?? Promise.resolve(),
    options.incoming ? StandbyMonitor.make(paths.standby) : Promise.resolve(),
  ]);
  signal?.throwIfAborted();
  const started = await startQemu(binary.path, qemuCommandLine, paths);
  const { identity, exitWatch } = started;
  try {
    const qmp = await connectQmp(started, options, paths);
    started.child.unref();
    const standby = options.incoming ? await beginStandby(paths) : null;
    return new GuestProcess({ identity, qmp, paths, exitWatch, standby });
  } catch (error) {
    started.child.kill("SIGKILL");
    await exitWatch.exited;
    throw error;
  }
}

/** Rejects with the first that has failed, and when nothing of the others is under way any more. */
async function allDone(all: readonly Promise<void>[]): Promise<void> {
  const outcomes = await Promise.allSettled(all);
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

/** Null where QEMU does not take commands out of band there. */
async function beginStandby({ standby }: GuestPaths): Promise<StandbyMonitor | null> {
  try {
    return await StandbyMonitor.begin({ path: standby });
  } catch (error) {
    if (error instanceof QmpError) return null;
    throw error;
  }
}

async function argumentPaths(
  { definition, imageDirectory, diskBackings }: LaunchGuestOptions,
  { qmpSocket, standby, serialLog }: GuestPaths,
): Promise<GuestArgumentPaths> {
  const { boot } = definition;
  const disks = new Map<string, DiskBacking>(diskBackings);
  for (const { id, image } of definition.disks) {
    if (!disks.has(id)) disks.set(id, await resolveImage({ imageDirectory, name: image }));
  }
  const pathOf = async (name: string | undefined): Promise<string | null> =>
    name === undefined ? null : (await resolveImage({ imageDirectory, name })).path;
  const kernel = await pathOf(boot?.kernel);
  return { qmpSocket, standby, serialLog, kernel, initrd: await pathOf(boot?.initrd), disks };
}

async function startQemu(
  path: string,
  qemuCommandLine: readonly string[],
  paths: GuestPaths,
): Promise<StartedQemu> {
  const log = await open(paths.qemuLog, "a", 0o600);
  try {
    const { size: logFromBytes } = await log.stat();
    const child = spawn(path, qemuCommandLine, {
      cwd: paths.directory,
      detached: true,
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C.UTF-8" },
      stdio: ["ignore", log.fd, log.fd],
    });
    const exitWatch = watchChild(child);
    await spawned(child, path);
    return { child, identity: identityOf(child, paths), exitWatch, logFromBytes };
  } finally {
    await log.close();
  }
}

async function spawned(child: ChildProcess, binary: string): Promise<void> {
  const outcome = new Deferred();
  child.once("spawn", () => {
    outcome.resolve();
  });
  child.once("error", (cause: Error) => {
    const reason = cause.message;
    outcome.reject(
      new GuestError(
        `QEMU could not be started: ${reason}`,
        { code: "qemu-not-usable", binary, reason },
        { cause },
      ),
    );
  });
  await outcome.promise;
}

function identityOf({ pid }: ChildProcess, { qmpSocket }: GuestPaths): GuestIdentity {
  assert(pid !== undefined, "a child that was spawned has a pid");
  // Even if it has ended since: a child keeps its number until its parent has looked at it.
  const stat = readProcStat(pid);
  assert(stat !== null, "a child that was just spawned is in /proc");
  return { pid, startTicks: stat.startTicks, qmpPath: qmpSocket };
}

async function connectQmp(
  { exitWatch, logFromBytes }: StartedQemu,
  { timeoutMs, commandTimeoutMs, signal }: LaunchGuestOptions,
  { qmpSocket, qemuLog }: GuestPaths,
): Promise<QmpClient> {
  const ended = new AbortController();
  void exitWatch.exited.then(() => {
    ended.abort();
  });
  const deadline = AbortSignal.timeout(timeoutMs);
  const stopped = AbortSignal.any([ended.signal, deadline, ...(signal ? [signal] : [])]);
  let lastError: unknown;
  while (!stopped.aborted) {
    try {
      return await QmpClient.connect({
        path: qmpSocket,
        timeoutMs,
        signal: stopped,
        ...(commandTimeoutMs === undefined ? {} : { commandTimeoutMs }),
      });
    } catch (error) {
      // The reason of `stopped` itself is told apart below.
      if (error !== stopped.reason && !isWorthAnotherTry(error)) throw error;
      lastError = error;
    }
    // It does not listen yet, or it has just gone and the news is on its way. A sleep that is cut
    // short is what ends the loop.
    await sleep(CONNECT_INTERVAL_MS, undefined, { signal: stopped }).catch(() => undefined);
  }
  if (ended.signal.aborted) {
    throw qemuExited(await exitWatch.exited, await readLogTail(qemuLog, logFromBytes));
  }
  signal?.throwIfAborted();
  throw new GuestError(
    `QEMU did not answer on QMP within ${timeoutMs} ms of its start`,
    { code: "qemu-start-timeout", timeoutMs },
    { cause: lastError },
  );
}

function isWorthAnotherTry(error: unknown): boolean {
  return (
    error instanceof QmpError &&
    (error.code === "qmp-connect-failed" || error.code === "qmp-closed")
  );
}

function qemuExited(exit: GuestExit, lastLines: readonly string[]): GuestError {
  const { code: exitCode, signal } = exit.kind === "observed" ? exit : { code: null, signal: null };
  const said = lastLines.length === 0 ? "it said nothing" : lastLines.slice(-2).join(" ");
  const how = signal === null ? `with code ${String(exitCode)}` : `by ${signal}`;
  return new GuestError(`QEMU ended ${how}: ${said}`, {
    code: "qemu-exited",
    exitCode,
    signal,
    lastLines,
  });
}
