/**
 * A guest whose memory was still arriving when an earlier life of this agent ended. Its QEMU is taken
 * up before anything is asked of it, for it may answer nothing until a page comes; and pages may come
 * before the guest is known again.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import {
  collectYoungGarbage,
  type Logger,
  type PageFileError,
  type PageFileKey,
} from "@vmferry/agent";
import type { Clock } from "@vmferry/core";
import type { ControlMessageOf, PageLaneName } from "@vmferry/protocol";
import { guestPaths, QmpClient, StandbyMonitor } from "@vmferry/qemu";
import {
  dropSection,
  readSection,
  type KeptClaim,
  type KeptSection,
} from "../adapters/kept-section.ts";
import { recoverQemu } from "../adapters/recover-qemu.ts";
import { ArrivingFile } from "../postcopy/arriving-file.ts";
import type { Fetching } from "../postcopy/fetching.ts";
import { PageFetch, type WholeMemory } from "../postcopy/page-fetch.ts";
import { beginFetching } from "./begin-fetching.ts";
import type { PageLink, PagesOwner } from "./page-link.ts";

const CONNECT_MS_MAX = 1000;

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

export class RecoveredFetch implements PagesOwner {
  readonly claim: KeptClaim;
  /** Null where QEMU had everything already. */
  readonly pages: PageFetch | null;
  readonly #fetching: Fetching | null;
  readonly #file: ArrivingFile | null;
  readonly #directory: string;

  private constructor(
    directory: string,
    { claim, fileKey: key }: Pick<KeptSection, "claim" | "fileKey">,
    { fetching, ports }: { fetching: Fetching | null; ports: RecoveredFetchPorts },
  ) {
    this.#directory = directory;
    this.claim = claim;
    this.#fetching = fetching;
    this.pages =
      fetching === null
        ? null
        : new PageFetch({
            ...ports,
            // Every agent that has page lanes has zstd.
            compression: true,
            onInflated: collectYoungGarbage,
            onProgress: () => undefined,
          });
    this.#file = arrivingFile(ports, { about: claim, key, fetching });
    if (fetching !== null) beginFetching(fetching, this.pages!, this.#file?.pages ?? null);
  }

  /** Every guest that waits for pages takes them from now on. Never rejects. */
  static async takeUpAll(ports: RecoveredFetchPorts): Promise<RecoveredFetch[]> {
    const names = await readdir(ports.guestsDir).catch(() => []);
    const taken = names.map(async (name) => {
      const logger = ports.logger.child({ guest: name });
      try {
        return await RecoveredFetch.#takeUp(join(ports.guestsDir, name), { ...ports, logger });
      } catch (error) {
        logger.error({ err: error }, "the guest's QEMU cannot be given the memory that it lacks");
        return null;
      }
    });
    return (await Promise.all(taken)).filter((one) => one !== null);
  }

  static async #takeUp(
    directory: string,
    ports: RecoveredFetchPorts,
  ): Promise<RecoveredFetch | null> {
    const kept = await readSection(directory);
    if (kept === null) return null;
    const { claim, section } = kept;
    const { standby, qmpSocket: path } = guestPaths(directory);
    const oob = await StandbyMonitor.goOn({ path: standby });
    // Nobody else speaks to this QEMU yet; where it does not answer, it is done without.
    const qmp = await QmpClient.connect({ path, timeoutMs: CONNECT_MS_MAX }).catch(() => null);
    const socketPath = join(ports.runDir, `${claim.migrationId.slice(0, 8)}.re`);
    try {
      const fetching = await recoverQemu({ oob, qmp, clock: ports.clock, socketPath, section });
      const missingPages = fetching?.placer.missing.count ?? 0;
      ports.logger.info({ missingPages }, "a guest of an earlier life takes the memory it lacks");
      return new RecoveredFetch(directory, kept, { fetching, ports });
    } finally {
      await qmp?.close();
      await oob.close();
    }
  }

  claimMatches({
    migrationId,
    epoch,
    generation,
    incarnation,
  }: ControlMessageOf<"pages-hello">): boolean {
    const { claim } = this;
    return (
      migrationId === claim.migrationId &&
      epoch === claim.epoch &&
      generation === claim.generation &&
      incarnation === claim.incarnation
    );
  }

  attachPages(lane: PageLaneName, attempt: number, link: PageLink): void {
    this.pages?.attach(lane, attempt, link);
  }

  /** Resolves when QEMU has all of its memory; null where it had all of it before. */
  async whole(): Promise<WholeMemory | null> {
    const whole = (await this.pages?.whole) ?? null;
    await this.#fetching?.close();
    this.#file?.remove();
    await dropSection(this.#directory);
    return whole;
  }

  /** The guest is gone, or refused. */
  close(): void {
    this.pages?.close();
  }
}

function arrivingFile(
  { sharedDir, logger }: RecoveredFetchPorts,
  {
    about,
    key,
    fetching,
  }: {
    readonly about: KeptClaim;
    readonly key: PageFileKey | null;
    readonly fetching: Fetching | null;
  },
): ArrivingFile | null {
  if (key === null || sharedDir === null || fetching === null) return null;
  const onTrouble = (error: PageFileError): void => {
    logger.warn({ err: error }, "the share is no help: memory comes by the network alone");
  };
  return new ArrivingFile({ sharedDir, about, key, blocks: fetching.blocks, logger, onTrouble });
}
