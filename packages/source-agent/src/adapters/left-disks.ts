/**
 * Which disks follow a guest that was handed over, where its agent keeps what it has to serve: an
 * agent that starts anew knows nothing else of them, for the guest itself may be gone.
 */
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { writeDurably } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import { limits } from "@vmferry/protocol";
import { mayExist } from "./may-exist.ts";

const VERSION = 1;
const SUFFIX = ".disks.json";
/** As long as a journal is kept. */
const KEPT_MS_MAX = 30 * 86_400_000;

/** A disk that is to follow its guest. */
export interface FollowingDisk {
  readonly id: string;
  /** In the offer. */
  readonly index: number;
  /** Absolute. */
  readonly path: string;
  readonly sizeBytes: number;
  readonly unitBytes: number;
}

/** One that was left, and how. */
export interface LeftDisk extends FollowingDisk {
  /** Decimal: when the image was written last, if the guest did not write to it since. Absent for a device. */
  readonly writtenAtNs?: string;
}

export interface LeftDisks {
  readonly epoch: number;
  readonly hashSeed: string;
  readonly disks: readonly LeftDisk[];
}

/** Durable when it resolves: before the guest is handed over. */
export async function writeLeftDisks(
  directory: string,
  migrationId: string,
  left: LeftDisks,
): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await writeDurably(pathOf(directory, migrationId), JSON.stringify({ version: VERSION, ...left }));
}

/** Null where no disk follows. Rejects where that cannot be told. */
export async function readLeftDisks(
  directory: string,
  migrationId: string,
): Promise<LeftDisks | null> {
  const path = pathOf(directory, migrationId);
  try {
    const left = JSON.parse(await readFile(path, "utf8")) as LeftDisks & { version: unknown };
    if (left.version !== VERSION) throw new Error(`version ${String(left.version)}`);
    if (!Array.isArray(left.disks) || left.disks.length > limits.DISKS_MAX)
      throw new Error("disks");
    return { epoch: left.epoch, hashSeed: left.hashSeed, disks: left.disks as LeftDisk[] };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw new Error(`${path} cannot be used: ${messageOf(error)}`, { cause: error });
  }
}

/** False where certainly no disk follows. */
export function mayHaveLeftDisks(directory: string, migrationId: string): Promise<boolean> {
  return mayExist(pathOf(directory, migrationId));
}

/** Nobody can ask for them any more. */
export async function removeLeftDisks(directory: string, migrationId: string): Promise<void> {
  await rm(pathOf(directory, migrationId), { force: true });
}

/**
 * Those of hand-overs that are longer past than any journal tells of. Those of `open` ones, by their
 * migrations, stay.
 */
export async function removeOldLeftDisks(
  directory: string,
  { open, now }: { readonly open: ReadonlySet<string>; readonly now: Date },
): Promise<void> {
  for (const name of await readdir(directory).catch(() => [])) {
    if (!name.endsWith(SUFFIX) || open.has(name.slice(0, -SUFFIX.length))) continue;
    // One of which nothing can be told stays.
    const left = await stat(join(directory, name)).catch(() => null);
    if (left !== null && now.getTime() - left.mtimeMs > KEPT_MS_MAX)
      await rm(join(directory, name), { force: true });
  }
}

function pathOf(directory: string, migrationId: string): string {
  return join(directory, `${migrationId}${SUFFIX}`);
}
