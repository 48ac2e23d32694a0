/**
 * The guests that an earlier life of this agent has written down, and the way to their QEMUs. One
 * that lives and does not answer is neither gone nor ours to judge: it is asked again for as long as
 * it lives, and the agent works meanwhile.
 */
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { codeOf, growingDelay, messageOf } from "@vmferry/core";
import { seenQemu, type SeenQemu } from "@vmferry/protocol";
import {
  adoptGuest,
  findGuest,
  formatQemuVersion,
  guestPaths,
  type GuestIdentity,
  type GuestProcess,
} from "@vmferry/qemu";
import { readGuestRecord, writeGuestRecord, type GuestRecord } from "./guest-record.ts";
import { unreadableText } from "./unreadable-guests.ts";

const LOOK_MS_MAX = 5000;
const ADOPT_AGAIN = { msMin: 200, msMax: 5000 };

/** A guest that an earlier life of this agent has written down, and what its QEMU is now. */
export interface FoundGuest {
  readonly record: GuestRecord;
  /** Null when its QEMU is gone. */
  readonly process: GuestProcess | null;
  readonly qemu: SeenQemu;
}

/** Its QEMU lives, and does not answer. */
export interface SilentGuest {
  readonly record: GuestRecord;
  readonly pid: number;
  /** What became of the first attempt to ask it. */
  readonly reason: string;
  /** Resolves when QEMU has answered or is gone; rejects when the agent stops. */
  readonly found: Promise<FoundGuest>;
}

export interface EarlierRecords {
  readonly records: readonly GuestRecord[];
  /** Names of guests whose record cannot be read: which process is their QEMU, nobody knows. */
  readonly unreadable: readonly string[];
}

export function isSilent(seen: FoundGuest | SilentGuest): seen is SilentGuest {
  return "found" in seen;
}

export class EarlierGuests {
  readonly #root: string;
  readonly #logger: Logger;
  readonly #lookMsMax: number;
  readonly #stop = new AbortController();

  /** `root` has a directory for each guest. */
  constructor(root: string, logger: Logger, lookMsMax = LOOK_MS_MAX) {
    this.#root = root;
    this.#logger = logger;
    this.#lookMsMax = lookMsMax;
  }

  async records(): Promise<EarlierRecords> {
    await mkdir(this.#root, { recursive: true, mode: 0o700 });
    const records: GuestRecord[] = [];
    const unreadable: string[] = [];
    for (const name of await readdir(this.#root)) {
      const directory = join(this.#root, name);
      const record = await readGuestRecord(directory);
      if (record === "absent") continue;
      if (record !== "unreadable") {
        records.push(record);
        continue;
      }
      // Not even that of its QEMU: one that somebody else started serves a socket of its own.
      unreadable.push(name);
      this.#logger.error({ guest: name, directory }, unreadableText(name, directory));
    }
    return { records, unreadable };
  }

  /** Looks once, for some seconds at most. */
  async look(record: GuestRecord): Promise<FoundGuest | SilentGuest> {
    const first = await this.#ask(record);
    if ("record" in first) return first;
    const { name } = record.definition;
    this.#logger.error(
      { guest: name, pid: first.pid, reason: first.reason },
      "the guest's QEMU lives and does not answer: it is asked until it does, or is gone",
    );
    return { record, ...first, found: this.#askUntilFound(record) };
  }

  /** No QEMU is asked any more. */
  stop(): void {
    this.#stop.abort();
  }

  async #askUntilFound(record: GuestRecord): Promise<FoundGuest> {
    const { signal } = this.#stop;
    const nextDelayMs = growingDelay(ADOPT_AGAIN);
    for (;;) {
      await sleep(nextDelayMs(), undefined, { ref: false, signal });
      const seen = await this.#ask(record);
      if ("record" in seen) {
        if (!signal.aborted) return seen;
        await seen.process?.detach();
      }
      signal.throwIfAborted();
    }
  }

  async #ask(record: GuestRecord): Promise<FoundGuest | Pick<SilentGuest, "pid" | "reason">> {
    const { name } = record.definition;
    const directory = join(this.#root, name);
    const logger = this.#logger.child({ guest: name });
    let process: GuestProcess | null = null;
    let identity: GuestIdentity | null = null;
    try {
      identity = record.identity ?? findGuest(guestPaths(directory).qmpSocket);
      if (identity === null) {
        logger.info("the QEMU of a guest of an earlier life was never started, or is gone");
        return { record, process: null, qemu: "gone" };
      }
      const { signal } = this.#stop;
      process = await adoptGuest({
        ...{ ...identity, timeoutMs: this.#lookMsMax, signal },
        ...(record.attachment === undefined ? {} : { attachedDirectory: directory }),
      });
      const status = await process.qmp.execute("query-status");
      logger.info({ pid: process.pid, status: status.status }, "a guest of an earlier life");
      const found = { ...record, ...startedAs(process) };
      if (record.identity === null) await writeGuestRecord(directory, found);
      return { record: found, process, qemu: seenQemu(status) };
    } catch (error) {
      // QEMU serves one connection: the next attempt needs it.
      await process?.detach();
      const reason = messageOf(error);
      if (identity === null) throw error;
      if (isGone(error)) {
        logger.info({ reason }, "a guest of an earlier life is gone");
        return { record, process: null, qemu: "gone" };
      }
      logger.warn({ reason }, "the guest's QEMU does not answer yet");
      return { pid: identity.pid, reason };
    }
  }
}

/** What is known of a guest when its QEMU answers. */
export function startedAs(process: GuestProcess): Pick<GuestRecord, "identity" | "qemuVersion"> {
  return { identity: process.identity, qemuVersion: formatQemuVersion(process.qemuVersion) };
}

function isGone(error: unknown): boolean {
  const code = codeOf(error);
  return code === "guest-gone" || code === "guest-not-this-qemu";
}
