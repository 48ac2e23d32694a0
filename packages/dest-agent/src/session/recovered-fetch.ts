/**
 * A guest whose memory was still arriving when an earlier life of this agent ended. Its QEMU is taken
 * up before anything is asked of it, for it may answer nothing until a page comes; and pages may come
 * before the guest is known again.
 *
 * Memory that cannot be taken up is lost, not absent: nobody may say that nothing of it is missing.
 * It is tried again until that works, or nobody wants the guest any more.
 */
import { join } from "node:path";
import { collectYoungGarbage, type Logger, type PageFileError } from "@vmferry/agent";
import { Deferred, sleep, type Clock } from "@vmferry/core";
import { CloseCode, type ControlMessageOf, type PageLaneName } from "@vmferry/protocol";
import { guestPaths, QmpClient, QmpError, StandbyMonitor } from "@vmferry/qemu";
import { guestNames } from "../adapters/guest-names.ts";
import { dropSection, readSection, type KeptSection } from "../adapters/kept-section.ts";
import { recoverQemu, type RecoverQemuOptions } from "../adapters/recover-qemu.ts";
import { ArrivingFile } from "../postcopy/arriving-file.ts";
import type { Fetching } from "../postcopy/fetching.ts";
import { PageFetch } from "../postcopy/page-fetch.ts";
import { beginFetching } from "./begin-fetching.ts";
import { isOfClaim } from "./claim.ts";
import type { PageLink, PagesOwner } from "./page-link.ts";

const CONNECT_MS_MAX = 1000;
const AGAIN_MS_MIN = 1000;
const AGAIN_MS_MAX = 30_000;

export interface RecoveredFetchPorts {
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

type Monitor = NonNullable<RecoverQemuOptions["qmp"]>;

/** Told why memory does not arrive; null when it does again. */
export type OnLost = (reason: Error | null) => void;

export class RecoveredFetch implements PagesOwner {
  readonly #guest: string;
  readonly #directory: string;
  readonly #ports: RecoveredFetchPorts;
  /** Null as long as it cannot be read. */
  #kept: KeptSection | null = null;
  /** Null before QEMU takes pages. */
  #pages: PageFetch | null = null;
  #monitor: Monitor | null = null;
  #lost: Error | null = null;
  #onLost: OnLost = () => undefined;
  readonly #whole = new Deferred();
  #isClosed = false;

  private constructor(guest: string, ports: RecoveredFetchPorts) {
    this.#guest = guest;
    this.#directory = join(ports.guestsDir, guest);
    this.#ports = { ...ports, logger: ports.logger.child({ guest }) };
  }

  /**
   * Every guest that waits for pages takes them from now on, or is tried again and again. Rejects
   * where nobody can say which guests there are.
   */
  static async takeUpAll(ports: RecoveredFetchPorts): Promise<RecoveredFetch[]> {
    const names = await guestNames(ports.guestsDir);
    const found = names.map(async (name) => {
      const fetch = new RecoveredFetch(name, ports);
      return (await fetch.#begin()) ? fetch : null;
    });
    return (await Promise.all(found)).filter((fetch) => fetch !== null);
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

  /** Its QEMU answers in band: that is how it says that it lacks nothing. */
  askBy(monitor: Monitor): void {
    this.#monitor = monitor;
  }

  /** Resolves when QEMU has all of its memory; does not settle before. */
  whole(onLost: OnLost): Promise<void> {
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
  async #begin(): Promise<boolean> {
    const first = await this.#takeUp();
    if (first === "absent") return false;
    void this.#goOn(first);
    return true;
  }

  async #goOn(first: TakenUp): Promise<void> {
    let taken = first;
    for (let delayMs = AGAIN_MS_MIN; ; delayMs = Math.min(delayMs * 2, AGAIN_MS_MAX)) {
      // A section that somebody removed is lost for good.
      if (this.#isClosed || taken === "absent" || taken === "gone") return;
      if (taken !== "lost" && (await this.#arrives(taken))) return;
      await sleep(this.#ports.clock, delayMs);
      taken = await this.#takeUp();
    }
  }

  async #takeUp(): Promise<TakenUp> {
    try {
      const kept = await readSection(this.#directory);
      if (kept === null) return "absent";
      // A later hand-over has its own.
      if (this.#kept !== null && !this.isOf({ ...kept.claim, guest: this.#guest })) return "absent";
      this.#kept = kept;
      const fetching = await this.#recover(kept);
      this.#show(null);
      return fetching ?? "whole";
    } catch (error) {
      this.#show(error as Error);
      return isGone(error) ? "gone" : "lost";
    }
  }

  /** Null where QEMU has everything. */
  async #recover({ claim, section }: KeptSection): Promise<Fetching | null> {
    const { clock, runDir, logger } = this.#ports;
    const { standby, qmpSocket: path } = guestPaths(this.#directory);
    const oob = await StandbyMonitor.goOn({ path: standby });
    // Only the first time nobody else speaks to this QEMU. Where it does not answer, it is done without.
    const own =
      this.#lost === null
        ? await QmpClient.connect({ path, timeoutMs: CONNECT_MS_MAX }).catch(() => null)
        : null;
    const socketPath = join(runDir, `${claim.migrationId.slice(0, 8)}.re`);
    try {
      const qmp = this.#monitor ?? own;
      const fetching = await recoverQemu({ oob, qmp, clock, socketPath, section });
      const missingPages = fetching?.placer.missing.count ?? 0;
      logger.info({ missingPages }, "a guest of an earlier life takes the memory it lacks");
      return fetching;
    } finally {
      await own?.close();
      await oob.close();
    }
  }

  /** False where QEMU has stopped taking it. */
  async #arrives(taken: Fetching | "whole"): Promise<boolean> {
    try {
      if (taken !== "whole") await this.#fetch(taken, this.#kept!);
      await dropSection(this.#directory);
      this.#whole.resolve();
      return true;
    } catch (error) {
      this.#pages?.close();
      this.#pages = null;
      this.#show(error as Error);
      return false;
    }
  }

  async #fetch(fetching: Fetching, kept: KeptSection): Promise<void> {
    const pages = new PageFetch({
      ...this.#ports,
      // Every agent that has page lanes has zstd.
      compression: true,
      onInflated: collectYoungGarbage,
      onProgress: () => undefined,
    });
    this.#pages = pages;
    const file = arrivingFile(this.#ports, kept, fetching);
    try {
      beginFetching(fetching, pages, file?.pages ?? null);
      // A QEMU that lets go of it is seen at once, and not with the next page.
      await Promise.race([pages.whole, fetching.shut.then(() => pages.whole)]);
      file?.remove();
    } finally {
      await fetching.close();
    }
  }

  #show(lost: Error | null): void {
    if (this.#isClosed) return;
    if (lost !== null) {
      const text = "the guest's QEMU cannot be given the memory that it lacks";
      this.#ports.logger.error({ err: lost }, text);
    }
    const isNews = lost !== null || this.#lost !== null;
    this.#lost = lost;
    if (isNews) this.#onLost(lost);
  }
}

/** "whole" where QEMU has everything; "absent" where no memory of the guest was arriving. */
type TakenUp = Fetching | "whole" | "absent" | "lost" | "gone";

/** QEMU holds its FIFOs open for as long as it lives. */
function isGone(error: unknown): boolean {
  if (!(error instanceof QmpError)) return false;
  return error.detail.code === "qmp-connect-failed" && error.detail.systemCode === "ENXIO";
}

function arrivingFile(
  { sharedDir, logger }: RecoveredFetchPorts,
  { claim: about, fileKey: key }: KeptSection,
  { blocks }: Fetching,
): ArrivingFile | null {
  if (key === null || sharedDir === null) return null;
  const onTrouble = (error: PageFileError): void => {
    logger.warn({ err: error }, "the share is no help: memory comes by the network alone");
  };
  return new ArrivingFile({ sharedDir, about, key, blocks, logger, onTrouble });
}
