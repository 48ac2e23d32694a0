/**
 * Which disks of a guest are lazy, beside the guest: who takes them up after this agent has to serve
 * them on the sockets that QEMU knows, and to know the hand-over that they belong to.
 */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeDurably } from "@vmferry/agent";
import { AgentError, messageOf } from "@vmferry/core";
import { limits } from "@vmferry/protocol";
import type { KeptClaim } from "./kept-section.ts";

const FILE_NAME = "lazy-disks.json";
const VERSION = 2;
/** Its sockets lie beside the guest. */
const VERSION_WITHOUT_SOCKETS = 1;

export class KeptDisksError extends AgentError<{ readonly code: "lazy-disks-unusable" }> {}

export interface LazyDisk {
  readonly id: string;
  /** In the offer. */
  readonly index: number;
  /** Inside the image directory. */
  readonly image: string;
  readonly unitBytes: number;
}

export interface KeptDisk extends LazyDisk {
  /** That QEMU knows. */
  readonly socketPath: string;
}

export interface KeptDisks {
  readonly claim: KeptClaim;
  readonly hashSeed: string;
  readonly disks: readonly KeptDisk[];
}

/** Durable when it resolves: a host that crashes leaves disks of which a part is elsewhere. */
export async function keepDisks(directory: string, kept: KeptDisks): Promise<void> {
  const { migrationId, epoch, generation, incarnation } = kept.claim;
  const claim = { migrationId, epoch, generation, incarnation };
  const text = JSON.stringify({ version: VERSION, ...kept, claim });
  await writeDurably(join(directory, FILE_NAME), text);
}

export async function dropDisks(directory: string): Promise<void> {
  await rm(join(directory, FILE_NAME), { force: true });
}

/** Null where there is none; rejects with `lazy-disks-unusable` where it cannot be read. */
export async function readDisks(directory: string): Promise<KeptDisks | null> {
  const path = join(directory, FILE_NAME);
  try {
    const kept = JSON.parse(await readFile(path, "utf8")) as KeptDisks & { version: number };
    const problem = problemWith(kept);
    if (problem !== null) throw new Error(problem);
    const { version, claim, hashSeed, disks } = kept;
    if (version === VERSION) return { claim, hashSeed, disks };
    const besideGuest = (disk: LazyDisk): KeptDisk => {
      return { ...disk, socketPath: join(directory, `lazy-${disk.index}`) };
    };
    return { claim, hashSeed, disks: disks.map(besideGuest) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    const text = `${path} cannot be used, so that disks cannot go on arriving: ${messageOf(error)}`;
    throw new KeptDisksError(text, { code: "lazy-disks-unusable" }, { cause: error });
  }
}

/** Written by an agent, perhaps by another release. */
function problemWith(kept: Partial<KeptDisks & { version: number }> | null): string | null {
  const version = kept?.version;
  if (version !== VERSION && version !== VERSION_WITHOUT_SOCKETS) return "its version";
  const { claim, hashSeed, disks } = kept!;
  if (typeof claim?.migrationId !== "string" || typeof claim.incarnation !== "string")
    return "claim";
  if (typeof hashSeed !== "string" || !/^[0-9a-f]{16}$/.test(hashSeed)) return "hashSeed";
  if (!Array.isArray(disks) || disks.length > limits.DISKS_MAX) return "disks";
  for (const disk of disks as Partial<KeptDisk>[]) {
    const { id, image, index, unitBytes, socketPath } = disk;
    if (typeof id !== "string" || typeof image !== "string") return "id or image of a disk";
    if (!Number.isSafeInteger(index) || !Number.isSafeInteger(unitBytes)) return `disk ${id}`;
    if (version === VERSION && typeof socketPath !== "string") return `the socket of disk ${id}`;
  }
  return null;
}
