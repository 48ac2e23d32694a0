import { sleep, type Clock } from "@vmferry/core";
import type { DiskRestProgress } from "../disk/disk-rest.ts";
import type { RestProgress } from "../postcopy/memory-rest.ts";
import type { Cargo } from "./cargo.ts";
import type { FollowingBytes } from "./doubt-text.ts";
import type { ProgressReport } from "./progress-report.ts";

type Following = Pick<Cargo, "rest" | "diskRest">;

interface FollowingRests {
  readonly rest: { readonly progress: Pick<RestProgress, "remainingBytes"> } | null;
  readonly diskRest: { readonly progress: Pick<DiskRestProgress, "disks"> } | null;
}

const REPORT_MS = 250;

/** Shows what of a guest is still to follow it, until that is over. */
export async function followRest<Progress>(
  rest: { readonly progress: Progress },
  options: {
    readonly clock: Clock;
    readonly show: (progress: Progress) => void;
    readonly isOver: () => boolean;
  },
): Promise<void> {
  while (!options.isOver()) {
    options.show(rest.progress);
    await sleep(options.clock, REPORT_MS);
  }
}

/**
 * The dest may have the guest, whether or not its word ever arrives: what it lacks is served from now
 * on, and shown.
 */
export function serveCargo(
  cargo: Following & Pick<Cargo, "serveDisks">,
  report: ProgressReport,
  until: { readonly clock: Clock; readonly isOver: () => boolean },
): void {
  const { rest, diskRest } = cargo;
  rest?.handedOver();
  cargo.serveDisks();
  if (rest !== null) void followRest(rest, { ...until, show: report.rest.bind(report) });
  if (diskRest === null) return;
  void followRest(diskRest, { ...until, show: report.disksFollow.bind(report) });
}

export function doesFollow({ rest, diskRest }: Following): boolean {
  return rest !== null || diskRest !== null;
}

/** What the dest was not sent yet; null where nothing of the guest follows it. */
export function followingBytes(following: FollowingRests): FollowingBytes | null {
  const { rest, diskRest } = following;
  if (rest === null && diskRest === null) return null;
  return {
    memory: rest?.progress.remainingBytes ?? 0,
    disks: (diskRest?.progress.disks ?? []).reduce((sum, disk) => sum + disk.remainingBytes, 0),
  };
}

/** The dest has everything. */
export function showFollowed({ rest, diskRest }: Following, report: ProgressReport): void {
  if (rest !== null) {
    report.rest(rest.progress);
    report.restSent(rest.digest);
  }
  if (diskRest !== null) report.disksServed(diskRest.progress);
}
