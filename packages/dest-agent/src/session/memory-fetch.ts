/**
 * Memory that follows a guest, until its QEMU has all of it. A QEMU that stops taking pages, for it or
 * somebody else has let go of its stream, or because the agent that fed it has ended, is taken up:
 *
 *   begin (its first stream) ─▶ fetch ─▶ whole
 *                                │ ▲
 *                  QEMU lets go  ▼ │ migrate-recover
 *   takeUpAll (a restart) ─────▶ again
 *
 * It is taken up before anything is asked of it, for it may answer nothing until a page comes; after a
 * restart pages may come before the guest is known again.
 *
 * Memory that cannot be taken up is lost, not absent: nobody may say that nothing of it is missing.
 * It is tried again until that works, or nobody wants the guest any more.
 */
import { join } from "node:path";
import type { Logger, PageFileError } from "@vmferry/agent";
import { codeOf, Deferred, growingDelay, sleep, type Clock } from "@vmferry/core";
import {
  CloseCode,
  type ControlMessageOf,
  type MigrationFallback,
  type PageLaneName,
} from "@vmferry/protocol";
import { guestPaths, QmpClient, QmpError, StandbyMonitor, type OobSession } from "@vmferry/qemu";
import { guestNames } from "../adapters/guest-names.ts";
import { dropSection, readSection, type KeptSection } from "../adapters/kept-section.ts";
import { recoverQemu, type RecoverQemuOptions } from "../adapters/recover-qemu.ts";
import { ArrivingFile } from "../postcopy/arriving-file.ts";
import type { Fetching } from "../postcopy/fetching.ts";
import { FetchTally } from "../postcopy/fetch-tally.ts";
import { PageFetch, type WholeMemory } from "../postcopy/page-fetch.ts";
import { beginFetching } from "./begin-fetching.ts";
import { isOfClaim } from "./claim.ts";
import { OverdueEnd } from "./overdue-end.ts";
import type { PageLink, PagesOwner } from "./page-link.ts";

const CONNECT_MS_MAX = 1000;
const AGAIN = { msMin: 1000, msMax: 30_000 };

export interface MemoryFetchPorts {
  /** Of all guests. */
  readonly guestsDir: string;
  /** Of sockets. */
  readonly runDir: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** That both hosts mount; null where there is none. */
  readonly sharedDir: string | null;
  readonly onPageFault: (seconds: number) => void;
}

/** The QEMU of a guest that is known: who else spoke on its standby monitor would miss answers. */
export interface FetchingQemu {
  readonly qmp: NonNullable<RecoverQemuOptions["qmp"]>;
  /** Null where it has none. */
  readonly standby: OobSession | null;
  isRunning(): boolean;
}

/** A guest that arrives in this life. */
export interface ArrivingMemory extends ArrivingGuest {
  /** Feature `zstd` was agreed. */
  readonly compression: boolean;
  /** Feature `lacks-all` was. */
  readonly maySayAll: boolean;
  readonly onFileTrouble: (error: PageFileError) => void;
  readonly onFileComplete: () => void;
  readonly onLost: OnLost;
}

interface ArrivingGuest extends Pick<KeptSection, "claim" | "fileKey"> {
  readonly guest: string;
}

/** Told why memory does not arrive; null when it does again. */
export type OnLost = (reason: Error | null) => void;

export class MemoryFetch implements PagesOwner {
  readonly #guest: string;
  readonly #directory: string;
  readonly #ports: MemoryFetchPorts;
  /** Null in a guest of an earlier life. */
  readonly #arriving: ArrivingMemory | null;
  /** Null as long as it cannot be read. */
  #kept: Pick<KeptSection, "claim" | "fileKey"> | null = null;
  /** Null while QEMU takes no pages, once it did. */
  #pages: PageFetch | null = null;
  #file: ArrivingFile | null = null;
  readonly #tally = new FetchTally();
  #missingPages: number | null = null;
  #qemu: FetchingQemu | null = null;
  #isStandbyLost = false;
  #hasBegun = false;
  #lost: Error | null = null;
  #onLost: OnLost;
  readonly #whole = new Deferred<WholeMemory>();
  #isClosed = false;

  private constructor(guest: string, ports: MemoryFetchPorts, arriving: ArrivingMemory | null) {
    this.#guest = guest;
    this.#directory = join(ports.guestsDir, guest);
    this.#ports = ports;
    this.#arriving = arriving;
    this.#onLost = arriving?.onLost ?? (() => undefined);
  }

  /**
   * Every guest that waits for pages takes them from now on, or is tried again and again. Rejects
   * where nobody can say which guests there are.
   */
  static async takeUpAll(ports: MemoryFetchPorts): Promise<MemoryFetch[]> {
    const names = await guestNames(ports.guestsDir);
    const found = names.map(async (name) => {
      const logger = ports.logger.child({ guest: name });
      const fetch = new MemoryFetch(name, { ...ports, logger }, null);
      return (await fetch.#takeUpFirst()) ? fetch : null;
    });
    return (await Promise.all(found)).filter((fetch) => fetch !== null);
  }

  /** Of which memory may follow: its lanes may come before QEMU takes pages. */
  static arriving(ports: MemoryFetchPorts, arriving: ArrivingMemory): MemoryFetch {
    const fetch = new MemoryFetch(arriving.guest, ports, arriving);
    fetch.#kept = arriving;
    fetch.#pages = fetch.#newPages(arriving.maySayAll);
    return fetch;
  }

  /** Its QEMU is loaded, lacks some of its memory and takes pages; its section is kept. */
  begin(fetching: Fetching, qemu: FetchingQemu): void {
    this.#qemu = qemu;
    this.#hasBegun = true;
    void this.#goOn(fetching);
  }

  /** Some of its memory follows. */
  get hasBegun(): boolean {
    return this.#hasBegun;
  }

  get counters(): FetchTally["counters"] {
    return this.#tally.counters;
  }

  get waits(): FetchTally["waits"] {
    return this.#tally.waits;
  }

  /** Null before QEMU is loaded. */
  get missingPages(): number | null {
    return this.#pages?.missingPages ?? this.#missingPages;
  }

  /** Of pages on the share, at present; null where none come that way. */
  get fallback(): MigrationFallback | null {
    if (this.#file === null) return null;
    return this.#file.pages.isComplete ? "complete" : "growing";
  }

  /** What cannot be read belongs to whatever is known of its guest. */
  isOf({ migrationId, guest }: { readonly migrationId: string; readonly guest: string }): boolean {
    const claim = this.#kept?.claim;
    return claim === undefined ? guest === this.#guest : claim.migrationId === migrationId;
  }

  claimMatches(hello: ControlMessageOf<"pages-hello">): boolean {
    if (this.#kept === null) return false;
    const { claim } = this.#kept;
    return isOfClaim({ stun: claim, incarnation: claim.incarnation }, hello);
  }

  attachPages(lane: PageLaneName, attempt: number, link: PageLink): void {
    if (this.#pages !== null) this.#pages.attach(lane, attempt, link);
    // The source dials anew.
    else link.close(this.#whole.settled ? CloseCode.DONE : CloseCode.SESSION_UNKNOWN);
  }

  /** Why its memory does not arrive; null where it does, or has. */
  get lost(): Error | null {
    return this.#lost;
  }

  get isWhole(): boolean {
    return this.#whole.settled;
  }

  /** Its QEMU is known: in band it says that it lacks nothing. */
  askBy(qemu: FetchingQemu): void {
    this.#qemu = qemu;
  }

  /** Resolves when QEMU has all of its memory; does not settle before. */
  whole(onLost: OnLost): Promise<WholeMemory> {
    this.#onLost = onLost;
    if (this.#lost !== null) onLost(this.#lost);
    return this.#whole.promise;
  }

  /** The guest is gone, or refused. */
  close(): void {
    this.#isClosed = true;
    this.#pages?.close();
  }

  /** The first attempt is waited for. False where nothing of the guest was arriving. */
  async #takeUpFirst(): Promise<boolean> {
    const first = await this.#takeUp();
    if (first === "absent") return false;
    this.#hasBegun = true;
    void this.#goOn(first);
    return true;
  }

  async #goOn(first: TakenUp): Promise<void> {
    let taken = first;
    const nextDelayMs = growingDelay(AGAIN);
    // The first time at once, which need not be told to anybody.
    for (let delayMs = 0; ; delayMs = nextDelayMs()) {
      if (taken === "gone" || taken === "absent") return;
      if (taken !== "lost") {
        const reason = await this.#arrives(taken);
        if (reason === null) return;
        if (delayMs > 0) this.#show(reason);
      }
      await sleep(this.#ports.clock, delayMs);
      if (this.#isClosed) return;
      taken = await this.#takeUp();
    }
  }

  async #takeUp(): Promise<TakenUp> {
    if (this.#qemu?.isRunning() === false) return "gone";
    try {
      const kept = await readSection(this.#directory);
      if (kept === null) return this.#absent();
      // A later hand-over has its own.
      if (this.#kept !== null && !this.isOf({ ...kept.claim, guest: this.#guest })) return "absent";
      this.#kept = kept;
      const fetching = await this.#recover(kept);
      this.#show(null);
      return fetching ?? "whole";
    } catch (error) {
      if (isGone(error)) return "gone";
      if (codeOf((error as Error).cause) === "qmp-closed") this.#isStandbyLost = true;
      this.#show(error as Error);
      return "lost";
    }
  }

  /** A section that somebody removed is lost for good. */
  #absent(): "absent" {
    if (this.#kept !== null)
      this.#show(new Error(`its RAM section is gone from ${this.#directory}`));
    return "absent";
  }

  /** Null where QEMU has everything. */
  async #recover({ claim, section, hasUrgentChannel }: KeptSection): Promise<Fetching | null> {
    const { clock, runDir, logger } = this.#ports;
    const { standby: path, qmpSocket } = guestPaths(this.#directory);
    const known = this.#qemu;
    const standby = this.#isStandbyLost ? null : (known?.standby ?? null);
    const ownOob = standby === null ? await StandbyMonitor.goOn({ path }) : null;
    // Only the first time nobody else speaks to this QEMU. Where it does not answer, it is done without.
    const isFirst = known === null && this.#lost === null;
    const ownQmp = isFirst ? await connect(qmpSocket) : null;
    const socketPath = join(runDir, `${claim.migrationId.slice(0, 8)}.re`);
    try {
      const oob = ownOob ?? standby!;
      const qmp = known?.qmp ?? ownQmp;
      const of = { socketPath, section, hasUrgentChannel };
      const fetching = await recoverQemu({ oob, qmp, clock, ...of });
      const missingPages = fetching?.placer.missing.count ?? 0;
      logger.info({ missingPages }, "the guest's QEMU is taken up, and given the memory it lacks");
      return fetching;
    } finally {
      await ownQmp?.close();
      await ownOob?.close();
    }
  }

  /** Null when all of it is there; else why QEMU has stopped taking it. */
  async #arrives(taken: Fetching | "whole"): Promise<Error | null> {
    try {
      const memory = taken === "whole" ? NOT_COMPARED : await this.#fetch(taken);
      await dropSection(this.#directory);
      if (this.#lost !== null) this.#show(null);
      this.#whole.resolve(memory);
      return null;
    } catch (error) {
      this.#missingPages = this.missingPages;
      this.#pages?.close(CloseCode.SESSION_ENDED);
      this.#pages = null;
      const text = "the guest's QEMU has stopped taking the memory that it lacks";
      if (!this.#isClosed) this.#ports.logger.warn({ err: error as Error }, text);
      return error as Error;
    }
  }

  async #fetch(fetching: Fetching): Promise<WholeMemory> {
    const pages = (this.#pages ??= this.#newPages(false));
    const file = this.#newFile(fetching);
    this.#file = file;
    try {
      beginFetching(fetching, pages, file?.pages ?? null);
      // A QEMU that lets go of it is seen at once, and not with the next page.
      const memory = await Promise.race([pages.whole, fetching.shut.then(() => pages.whole)]);
      file?.remove();
      return memory;
    } finally {
      await fetching.close();
    }
  }

  #newPages(maySayAll: boolean): PageFetch {
    return new PageFetch({
      ...this.#ports,
      maySayAll,
      // Every agent that has left page lanes to the next one has zstd.
      compression: this.#arriving?.compression ?? true,
      onProgress: () => undefined,
      onEndOverdue: () => {
        this.#show(new OverdueEnd());
      },
      tally: this.#tally,
    });
  }

  #newFile({ blocks }: Fetching): ArrivingFile | null {
    const { sharedDir, logger } = this.#ports;
    const { claim: about, fileKey: key } = this.#kept!;
    if (key === null || sharedDir === null) return null;
    const onTrouble = (error: PageFileError): void => {
      logger.warn({ err: error }, "the share is no help: memory comes by the network alone");
      this.#arriving?.onFileTrouble(error);
    };
    const onComplete = this.#arriving?.onFileComplete ?? ((): void => undefined);
    return new ArrivingFile({ sharedDir, about, key, blocks, logger, onTrouble, onComplete });
  }

  #show(lost: Error | null): void {
    if (this.#isClosed) return;
    if (lost !== null) {
      const text = "the guest's memory does not become whole";
      this.#ports.logger.error({ err: lost }, text);
    }
    const isNews = lost !== null || this.#lost !== null;
    this.#lost = lost;
    if (isNews) this.#onLost(lost);
  }
}

/** What an earlier stream has brought, nobody has compared. */
const NOT_COMPARED: WholeMemory = { ramDigest: null, equal: null };

/** "whole" where QEMU has everything; "absent" where no memory of the guest was arriving. */
type TakenUp = Fetching | "whole" | "absent" | "lost" | "gone";

/** QEMU holds its FIFOs open for as long as it lives. */
function isGone(error: unknown): boolean {
  if (!(error instanceof QmpError)) return false;
  return error.detail.code === "qmp-connect-failed" && error.detail.systemCode === "ENXIO";
}

async function connect(path: string): Promise<QmpClient | null> {
  return await QmpClient.connect({ path, timeoutMs: CONNECT_MS_MAX }).catch(() => null);
}
