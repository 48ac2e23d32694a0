import { Deferred } from "@vmferry/core";
import type { QemuVersion } from "../qmp/qemu-version.ts";
import type { QmpClient } from "../qmp/qmp-client.ts";
import type { StandbyMonitor } from "../qmp/standby-monitor.ts";
import type { ExitWatch, GuestExit } from "./exit-watch.ts";
import type { GuestPaths } from "./guest-directory.ts";
import { GuestError } from "./guest-error.ts";
import { isSameProcess } from "./proc-stat.ts";

const GUEST_KILL_TIMEOUT_MS = 10_000;

/** What has to be written down to find a guest again after a restart of the agent. */
export interface GuestIdentity {
  readonly pid: number;
  /** When the process began; tells it from a later process with the same number. */
  readonly startTicks: number;
  readonly qmpPath: string;
}

export interface GuestProcessParts {
  readonly identity: GuestIdentity;
  readonly qmp: QmpClient;
  readonly paths: GuestPaths;
  readonly exitWatch: ExitWatch;
  readonly standby: StandbyMonitor | null;
}

/**
 * A running QEMU, started here or adopted. It does not end with this process, nor with this
 * object: whoever no longer needs it calls `quit`, `kill` or `detach`.
 */
export class GuestProcess {
  readonly identity: GuestIdentity;
  readonly qmp: QmpClient;
  readonly paths: GuestPaths;
  /** Of a guest that has arrived: answers also while QEMU's main loop waits. */
  readonly standby: StandbyMonitor | null;
  /** Never rejects; never settles after `detach`. */
  readonly exited: Promise<GuestExit>;
  readonly #exitWatch: ExitWatch;
  #hasExited = false;

  constructor({ identity, qmp, paths, exitWatch, standby }: GuestProcessParts) {
    this.identity = identity;
    this.qmp = qmp;
    this.paths = paths;
    this.standby = standby;
    this.exited = exitWatch.exited;
    this.#exitWatch = exitWatch;
    void exitWatch.exited.then(() => {
      this.#hasExited = true;
    });
    // A QEMU that ends closes its QMP connection: sooner than the next look at /proc.
    void qmp.closed.then(() => {
      exitWatch.look();
    });
  }

  get pid(): number {
    return this.identity.pid;
  }

  get startTicks(): number {
    return this.identity.startTicks;
  }

  get qemuVersion(): QemuVersion {
    return this.qmp.version;
  }

  get hasExited(): boolean {
    return this.#hasExited;
  }

  /** Asks the kernel, which knows before anybody has heard of an exit. */
  isRunning(): boolean {
    return !this.#hasExited && isSameProcess(this.pid, this.startTicks);
  }

  /** SIGKILL. Resolves when QEMU is gone; rejects with `qemu-did-not-exit`. */
  async kill({ timeoutMs = GUEST_KILL_TIMEOUT_MS } = {}): Promise<GuestExit> {
    killProcess(this.identity);
    const exit = await this.#exitWithin(timeoutMs);
    if (exit === null) {
      const { pid } = this;
      throw new GuestError(`QEMU (pid ${pid}) did not end within ${timeoutMs} ms of SIGKILL`, {
        code: "qemu-did-not-exit",
        pid,
        timeoutMs,
      });
    }
    await this.qmp.close();
    return exit;
  }

  /** Asks QEMU to end, which loses the guest's memory, and kills it when it has not by then. */
  async quit({ timeoutMs }: { readonly timeoutMs: number }): Promise<GuestExit> {
    // The reply does not matter, and QEMU may be gone before it is sent: what counts is the exit.
    this.qmp.execute("quit", undefined, { timeoutMs }).catch(() => undefined);
    const exit = this.qmp.isOpen ? await this.#exitWithin(timeoutMs) : null;
    if (exit === null) return this.kill();
    await this.qmp.close();
    return exit;
  }

  /** Lets go of QEMU, which goes on: closes QMP and stops watching for the exit. */
  async detach(): Promise<void> {
    this.#exitWatch.stop();
    await this.standby?.close();
    await this.qmp.close();
  }

  async #exitWithin(timeoutMs: number): Promise<GuestExit | null> {
    const expired = new Deferred<null>();
    const timer = setTimeout(() => {
      expired.resolve(null);
    }, timeoutMs);
    try {
      return await Promise.race([this.exited, expired.promise]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Never signals a process that began at another time. Whether it does at all is not told. */
function killProcess({ pid, startTicks }: GuestIdentity): void {
  if (!isSameProcess(pid, startTicks)) return;
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    // It ended in between; anything else is to be known.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
