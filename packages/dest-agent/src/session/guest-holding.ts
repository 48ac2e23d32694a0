/** What a hand-over may do with the guest that arrives, or has arrived in an earlier life. */
import { acceptImages, discardImages, type Guest, type GuestRegistry } from "@vmferry/agent";
import type { GuestDisk } from "@vmferry/protocol";
import { startLoaded, type ContOutcome } from "../adapters/start-loaded.ts";

export interface GuestHolding {
  /** Its QEMU has ended; never settles where there is none to end. */
  readonly exited: Promise<unknown>;
  /** QEMU runs, as the kernel says: what has ended before `start` has never run the guest. */
  isAlive(): boolean;
  /** Somebody has started it. */
  onResume(listener: () => void): void;
  start(): Promise<ContOutcome>;
  /** It is ours in `epoch`, and a restarted agent shall see that. */
  keep(epoch: number): Promise<void>;
  /** It never ran here. Resolves when nothing of it is left. */
  discard(): Promise<void>;
  /** Shows whose it is. */
  owned(epoch: number): void;
  inDoubt(): void;
}

export interface HeldGuestOptions {
  readonly guest: Guest;
  readonly registry: GuestRegistry;
  /** Its images become ordinary ones. */
  readonly keepDisks: () => Promise<void>;
  readonly discardDisks: () => Promise<void>;
}

/** A guest with its QEMU. */
export function holdGuest(options: HeldGuestOptions): GuestHolding {
  const { guest, registry, keepDisks, discardDisks } = options;
  return {
    exited: guest.exited,
    isAlive: () => guest.process.isRunning(),
    onResume: (listener) => {
      guest.qmp.onEvent(({ name }) => {
        if (name === "RESUME") listener();
      });
    },
    start: () => startLoaded(guest.qmp),
    keep: async (epoch) => {
      await registry.keep(guest, epoch);
      await keepDisks();
    },
    discard: async () => {
      // Not `guest.kill`, which takes no guest that is in doubt: a person may have settled that.
      if (guest.alive) await guest.process.kill();
      // Last: by its record an agent that dies here finds what is still to be removed.
      await discardDisks();
      await registry.forget(guest);
    },
    owned: (epoch) => {
      guest.owned(epoch);
    },
    inDoubt: () => {
      guest.inDoubt();
    },
  };
}

/** One that an earlier life of this agent has launched. */
export function holdAdopted(
  guest: Guest,
  {
    registry,
    imageDir,
    abandon,
  }: {
    readonly registry: GuestRegistry;
    readonly imageDir: string;
    /** Nothing of its images is served any more. */
    readonly abandon: () => Promise<void>;
  },
): GuestHolding {
  const { disks } = guest.definition;
  return holdGuest({
    guest,
    registry,
    keepDisks: () => acceptImages(disks, imageDir),
    discardDisks: async () => {
      await abandon();
      await discardImages(disks, imageDir);
    },
  });
}

/** Of which QEMU is gone, and perhaps everything. */
export function holdGone(options: {
  readonly disks: readonly GuestDisk[];
  readonly imageDir: string;
  readonly abandon: () => Promise<void>;
  readonly drop: () => Promise<void>;
}): GuestHolding {
  const { disks, imageDir, abandon, drop } = options;
  return {
    exited: new Promise(() => undefined),
    isAlive: () => false,
    onResume: () => undefined,
    start: () => Promise.resolve({ kind: "unknown", reason: "its QEMU is gone" }),
    keep: async () => {
      await acceptImages([...disks], imageDir);
      await drop();
    },
    discard: async () => {
      await abandon();
      await discardImages([...disks], imageDir);
      await drop();
    },
    owned: () => undefined,
    inDoubt: () => undefined,
  };
}
