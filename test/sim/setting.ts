/** What all parts of one simulated world share. */
import type { Journal, Logger } from "../../packages/agent/src/index.ts";
import type { GuestDefinition } from "@vmferry/protocol";
import type { Channel } from "../../packages/agent/src/index.ts";
import type { Life } from "./life.ts";
import type { Machine } from "./machine.ts";
import type { Network } from "./network.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Share } from "./share.ts";
import type { Trace } from "./trace.ts";
import type { Truth } from "./truth.ts";

/** A bug that a test puts into the world: what it does not name is as it should be. */
export interface PlantedBug {
  /** What this life's objects see of its journal. */
  readonly sourceJournal?: (journal: Journal<"source">) => Journal<"source">;
  readonly destJournal?: (journal: Journal<"dest">) => Journal<"dest">;
  /** The source's end of a control connection. */
  readonly sourceChannel?: (channel: Channel, life: Life) => Channel;
  readonly destChannel?: (channel: Channel, life: Life) => Channel;
  readonly destAutostarts?: boolean;
  /** The last blocks do not travel, and the digest is over what did. */
  readonly forgetsLastBlocks?: boolean;
  /** The source's QEMU ends as soon as the guest is handed over. */
  readonly quitsAtHandOver?: boolean;
  /** A QEMU that could not be killed is taken for dead. */
  readonly takesKilledForDead?: boolean;
  /** Silence of the other side ends no connection. */
  readonly deafToSilence?: boolean;
}

export interface Setting {
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly trace: Trace;
  readonly network: Network;
  readonly truth: Truth;
  /** Null where the two hosts have no directory in common. */
  readonly share: Share | null;
  readonly bug: PlantedBug;
  readonly onPort: (life: Life, name: string) => void;
  readonly onRun: (machine: Machine) => void;
  readonly onEnd: (machine: Machine) => void;
  /** What is durable at a host has changed. */
  readonly onDurable: (lastRecord: string | null) => void;
  /** An agent says that it met a bug of its own. */
  readonly onFault: (what: string) => void;
}

export const GUEST = "web1";
export const GUEST_UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
export const definition: GuestDefinition = {
  name: GUEST,
  machine: "pc-q35-7.2",
  accel: "tcg",
  cpu: "qemu64",
  vcpus: 1,
  memoryBytes: 16 * 2 ** 20,
  boot: { kernel: "vmlinuz", initrd: "initrd.img", cmdline: "" },
  // That which a migration carries is of the simulation alone, and no file.
  disks: [],
  serial: "file",
};

/** Whether an agent's error line tells of a bug: an assertion, or an event out of place. */
function isBug(error: unknown): error is Error {
  if (!(error instanceof Error)) return false;
  return (
    ["InvariantError", "OwnershipError", "TypeError", "RangeError"].includes(error.name) ||
    error.name === "ReferenceError"
  );
}

export function loggerOf({ trace, onFault }: Setting, life: Life): Logger {
  const say =
    (level: string) =>
    (fields: unknown, text?: string): void => {
      if (life.isDead) return;
      const error = (fields as { readonly err?: unknown } | null)?.err;
      if (isBug(error)) onFault(`${life.side}: ${error.message}`);
      if (trace.lines === null || level === "debug") return;
      const { err, ...rest } = (typeof fields === "string" ? {} : fields) as { err?: unknown };
      const reason = err instanceof Error ? ` ${err.name}: ${err.message}` : "";
      const message = typeof fields === "string" ? fields : (text ?? "");
      trace.comment(`  ${life.side} ${level}: ${message} ${JSON.stringify(rest)}${reason}`);
    };
  const logger = {
    error: say("error"),
    warn: say("warn"),
    info: say("info"),
    debug: () => undefined,
    trace: () => undefined,
    child: (): unknown => logger,
  };
  return logger as unknown as Logger;
}
