/**
 * The disks of one guest that follow it, from before its QEMU is started until that has every image
 * for itself:
 *
 *   open (exports, on which QEMU starts) ─▶ begin (before PREPARED) ─▶ whole ─▶ ordinary images
 *   takeUpAll (the agent starts anew: exports are there again) ────────┘
 *
 * The exports outlive the session that opened them: as long as a unit is missing, QEMU stands on them.
 *
 * Disks that cannot be taken up are lost, not absent: nobody may say that nothing of them is missing.
 * They are tried again until that works, or nobody wants the guest any more; what QEMU asks waits.
 */
import { join } from "node:path";
import type { GuestBacking } from "@vmferry/agent";
import type { CreatedImage } from "@vmferry/block";
import { Deferred, growingDelay, messageOf, sleep } from "@vmferry/core";
import { CloseCode, type ControlMessageOf } from "@vmferry/protocol";
import { fetchBlocks, type BlockFetching } from "../adapters/block-link.ts";
import { guestNames } from "../adapters/guest-names.ts";
import { dropDisks, keepDisks, readDisks, type KeptDisks } from "../adapters/kept-disks.ts";
import { LazyExport } from "../adapters/lazy-export.ts";
import { BlockFetcher } from "../disk/block-fetcher.ts";
import type { EmptyDisk } from "../disk/incoming-disks.ts";
import { isOfClaim } from "./claim.ts";
import {
  LazyPart,
  type LazyDisksPorts,
  type LazyPartPorts,
  type LazyProgress,
} from "./lazy-part.ts";
import type { GuestOfDisks } from "./leave-export.ts";
import type { BlocksOwner, PageLink } from "./page-link.ts";

/** Half a minute for the locks of a killed agent; who comes later is found by a later attempt. */
const FIRST_LOCK_ATTEMPTS = 60;
const AGAIN = { msMin: 1000, msMax: 30_000 };

export interface TakeUpPorts extends Omit<LazyDisksPorts, "compression"> {
  /** Of all guests. */
  readonly guestsDir: string;
  readonly imageDir: string;
}

/** What an earlier life of the agent has left. */
interface Earlier {
  readonly guest: string;
  readonly directory: string;
  readonly imageDirectory: string;
}

export class LazyDisks implements BlocksOwner {
  readonly #ports: LazyDisksPorts;
  readonly #fetcher: BlockFetcher;
  /** Null in disks of this life. */
  readonly #earlier: Earlier | null;
  /** Null as long as it cannot be read. */
  #kept: KeptDisks | null = null;
  #parts: readonly LazyPart[] = [];
  readonly #known = new Deferred();
  #directory: string | null = null;
  #link: { readonly attempt: number; readonly fetching: BlockFetching } | null = null;
  #begun: Promise<void> | null = null;
  #takenUp: Promise<void> = Promise.resolve();
  #arrival: Promise<void> | null = null;
  #isWhole = false;
  #lost: Error | null = null;
  readonly #abandoning = new AbortController();
  /** A disk may have lost something, or both ends do not agree about it. */
  onFailed: (error: unknown) => void = () => undefined;
  /** Disks that are whole stay behind this agent, and why; null when none does any more. */
  onStuck: (reason: string | null) => void = () => undefined;
  /** By disk. */
  readonly #stuck = new Map<string, string>();
  /** Disks of an earlier life cannot be gone on with, and are tried again; null when they can. */
  onLost: (reason: Error | null) => void = () => undefined;

  private constructor(ports: LazyDisksPorts, earlier: Earlier | null) {
    this.#ports = ports;
    this.#earlier = earlier;
    this.#directory = earlier?.directory ?? null;
    this.#fetcher = new BlockFetcher(ports.clock);
  }

  static of(
    disks: readonly EmptyDisk[],
    offer: Pick<ControlMessageOf<"offer">, "migrationId" | "epoch" | "incarnation" | "hashSeed">,
    ports: LazyDisksPorts,
  ): LazyDisks {
    const { migrationId, epoch, incarnation, hashSeed } = offer;
    const claim = { migrationId, epoch, generation: 1, incarnation };
    const kept = disks.map(({ disk }) => {
      return { ...disk, socketPath: ports.sockets.newPath(String(disk.index)) };
    });
    const lazy = new LazyDisks(ports, null);
    lazy.#know(
      { claim, hashSeed, disks: kept },
      disks.map(({ created }) => created),
    );
    return lazy;
  }

  /**
   * Of every guest that an earlier life of the agent has left with such disks; no others are there
   * yet. Rejects where nobody can say which guests there are. The first attempt is waited for.
   */
  static async takeUpAll(ports: TakeUpPorts): Promise<LazyDisks[]> {
    const names = await guestNames(ports.guestsDir);
    const taken = names.map(async (guest) => {
      const logger = ports.logger.child({ guest });
      const directory = join(ports.guestsDir, guest);
      const earlier = { guest, directory, imageDirectory: ports.imageDir };
      // Every agent that has lazy disks has zstd.
      const disks = new LazyDisks({ ...ports, logger, compression: true }, earlier);
      return (await disks.#takeUpFirst(earlier)) ? disks : null;
    });
    const all = (await Promise.all(taken)).filter((disks) => disks !== null);
    await giveUpOthers(
      all.map((disks) => disks.#sockets),
      ports,
    );
    return all;
  }

  /** Why they cannot be gone on with; null where they can. */
  get lost(): Error | null {
    return this.#lost;
  }

  /** Those that cannot be read belong to whatever is known of their guest. */
  isOf({ migrationId, guest }: { readonly migrationId: string; readonly guest: string }): boolean {
    if (this.#kept === null) return guest === this.#earlier?.guest;
    return this.#kept.claim.migrationId === migrationId;
  }

  /** QEMU stands on the exports: what it is started with, and what has to be there before. */
  get backing(): GuestBacking {
    return {
      disks: () =>
        new Map(
          this.#parts.map(({ kept: { id, socketPath } }) => {
            return [id, LazyExport.backing({ diskId: id, socketPath })];
          }),
        ),
      open: async (directory) => {
        this.#directory = directory;
        await dropDisks(directory);
        // At once: what the first one's socket is held by may have to be started.
        const opened = await Promise.allSettled(this.#parts.map((part) => part.export()));
        const failed = opened.find((outcome) => outcome.status === "rejected");
        if (failed !== undefined) throw failed.reason;
      },
    };
  }

  /** Bytes that only the source has, by the disks' ids, and for how long a request has waited. */
  get progress(): readonly LazyProgress[] {
    return this.#parts
      .map((part) => part.progress(this.#isWhole))
      .filter((progress) => progress !== null);
  }

  get isWhole(): boolean {
    return this.#isWhole;
  }

  /** Resolves when neither a crash nor a kill can make ordinary images of them. */
  begin(): Promise<void> {
    return (this.#begun ??= this.#begin());
  }

  claimMatches(hello: ControlMessageOf<"blocks-hello">): boolean {
    if (this.#kept === null) return false;
    const { claim } = this.#kept;
    return isOfClaim({ stun: claim, incarnation: claim.incarnation }, hello);
  }

  attachBlocks(attempt: number, link: PageLink): void {
    if (this.#isWhole) {
      link.close(CloseCode.DONE);
      return;
    }
    if (this.#link !== null && attempt <= this.#link.attempt) {
      link.close(CloseCode.SESSION_ENDED);
      return;
    }
    this.#link?.fetching.close(CloseCode.SESSION_ENDED);
    const fetching = fetchBlocks(link, this.#fetcher);
    this.#link = { attempt, fetching };
    void fetching.ended.then((reason) => {
      this.#ports.logger.info({ reason: messageOf(reason) }, "a connection of blocks has ended");
    });
  }

  /**
   * The guest runs, or may have: fetches what nobody asked for yet. Resolves when every image is whole
   * and an ordinary one, and QEMU stands on it alone.
   */
  whole(guest: GuestOfDisks): Promise<void> {
    return (this.#arrival ??= this.#whole(guest));
  }

  /** The guest is refused, and its QEMU gone: nothing is served any more. The images stay. */
  async abandon(): Promise<void> {
    const reason = new Error("the guest was refused");
    this.#abandoning.abort();
    this.#known.reject(reason);
    await this.#begun?.catch(() => undefined);
    await this.#takenUp;
    for (const part of this.#parts) await part.abandon(reason);
    this.#link?.fetching.close(CloseCode.SESSION_ENDED);
    if (this.#directory !== null) await dropDisks(this.#directory);
  }

  #know(kept: KeptDisks, created: readonly (CreatedImage | null)[]): void {
    const ports: LazyPartPorts = {
      ...this.#ports,
      fetcher: this.#fetcher,
      hashSeed: kept.hashSeed,
      onFailed: (error) => {
        this.#failed(error);
      },
      onStuck: (disk, reason) => {
        this.#setStuck(disk, reason);
      },
    };
    this.#kept = kept;
    this.#parts = kept.disks.map((disk, i) => new LazyPart(disk, created[i] ?? null, ports));
    this.#known.resolve();
  }

  async #begin(): Promise<void> {
    // First: of what is not written down nobody could say how to go on with it.
    await keepDisks(this.#directory!, this.#kept!);
    for (const part of this.#parts) await part.begin();
    for (const part of this.#parts) await part.held();
  }

  /** The first attempt. False where there are none. */
  async #takeUpFirst(earlier: Earlier): Promise<boolean> {
    const first = await this.#takeUp(earlier, FIRST_LOCK_ATTEMPTS);
    if (first === "absent") return false;
    this.#show(first);
    if (first !== null) this.#takenUp = this.#takeUpAgain(earlier);
    return true;
  }

  async #takeUpAgain(earlier: Earlier): Promise<void> {
    const { signal } = this.#abandoning;
    const nextDelayMs = growingDelay(AGAIN);
    for (;;) {
      await sleep(this.#ports.clock, nextDelayMs(), signal);
      if (signal.aborted) return;
      const outcome = await this.#takeUp(earlier, 1);
      // What somebody has removed is not whole for that.
      const text = `what was written down of them is gone from ${earlier.directory}`;
      this.#show(outcome === "absent" ? new Error(text) : outcome);
      if (outcome === null) return;
    }
  }

  /** Null where all of them are served. One that cannot be does not keep the guest from the others. */
  async #takeUp(
    { directory, imageDirectory }: Earlier,
    lockAttempts: number,
  ): Promise<Error | "absent" | null> {
    try {
      if (this.#kept === null) {
        const kept = await readDisks(directory);
        if (kept === null) return "absent";
        this.#know(kept, []);
      }
    } catch (error) {
      return error as Error;
    }
    const { migrationId } = this.#kept!.claim;
    const options = { imageDirectory, migrationId, lockAttempts };
    let lost: Error | null = null;
    for (const part of this.#parts) {
      await part.reopen(options).catch((error: unknown) => {
        lost ??= error as Error;
      });
    }
    return lost;
  }

  #show(lost: Error | null): void {
    const { logger } = this.#ports;
    const isNews = lost?.message !== this.#lost?.message;
    this.#lost = lost;
    if (lost === null) {
      const text = "lazy disks of an earlier life are served again";
      logger.warn({ disks: this.progress }, text);
    } else if (isNews)
      logger.error({ err: lost }, "lazy disks of an earlier life cannot be served");
    if (isNews) this.onLost(lost);
  }

  /** That QEMU may know; null as long as nobody can say which those are. */
  get #sockets(): readonly string[] | null {
    if (this.#kept === null) return null;
    return this.#parts.filter((part) => !part.isForeign).map(({ kept }) => kept.socketPath);
  }

  async #whole(guest: GuestOfDisks): Promise<void> {
    try {
      await this.#known.promise;
      await Promise.all(this.#parts.map((part) => part.settle(guest)));
    } catch (error) {
      this.#failed(error);
      throw error;
    }
    this.#isWhole = true;
    this.#link?.fetching.close(CloseCode.DONE);
    if (this.#directory !== null) await dropDisks(this.#directory);
  }

  #setStuck(disk: string, reason: string | null): void {
    if (reason === null && !this.#stuck.delete(disk)) return;
    if (reason !== null) this.#stuck.set(disk, reason);
    const all = [...this.#stuck].map(([id, why]) => `disk ${id}: ${why}`);
    this.onStuck(all.length === 0 ? null : all.join("; "));
  }

  #failed(error: unknown): void {
    this.#ports.logger.error({ err: error }, "a lazy disk does not arrive");
    this.onFailed(error);
  }
}

/** Sockets that an earlier life has left and that no QEMU knows; where that is not known, they stay. */
async function giveUpOthers(
  known: readonly (readonly string[] | null)[],
  { sockets, logger }: Pick<TakeUpPorts, "sockets" | "logger">,
): Promise<void> {
  if (known.includes(null)) return;
  const served = known.flatMap((paths) => paths ?? []);
  await sockets.giveUpAllBut(served).catch((error: unknown) => {
    logger.warn({ err: error }, "sockets of exports that are no more stay");
  });
}
