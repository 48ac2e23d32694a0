import type { ChildProcess } from "node:child_process";
import { Deferred } from "@vmferry/core";
import { isSameProcess } from "./proc-stat.ts";

/** How a QEMU ended. Only its parent is told how: for others it is merely gone. */
export type GuestExit =
  | {
      readonly kind: "observed";
      readonly code: number | null;
      readonly signal: NodeJS.Signals | null;
    }
  | { readonly kind: "unobserved" };

export interface ExitWatch {
  /** Never rejects; never settles after `stop`. */
  readonly exited: Promise<GuestExit>;
  /** Looks at once, where it would otherwise look at intervals. */
  readonly look: () => void;
  readonly stop: () => void;
}

const ADOPTED_POLL_INTERVAL_MS = 200;

export function watchChild(child: ChildProcess): ExitWatch {
  const exited = new Deferred<GuestExit>();
  const onExit = (code: number | null, signal: NodeJS.Signals | null): void => {
    exited.resolve({ kind: "observed", code, signal });
  };
  child.once("exit", onExit);
  return {
    exited: exited.promise,
    look: () => undefined,
    stop: () => {
      child.off("exit", onExit);
    },
  };
}

/** For a process with another parent, which nothing but /proc tells about. */
export function watchAdopted(pid: number, startTicks: number): ExitWatch {
  const exited = new Deferred<GuestExit>();
  const look = (): void => {
    if (isSameProcess(pid, startTicks)) return;
    clearInterval(timer);
    exited.resolve({ kind: "unobserved" });
  };
  const timer = setInterval(look, ADOPTED_POLL_INTERVAL_MS);
  return {
    exited: exited.promise,
    look,
    stop: () => {
      clearInterval(timer);
    },
  };
}
