/** A disk of the guest as it is before the migration begins: what the dest has to know of it. */
import { randomBytes } from "node:crypto";
import { rm, stat, writeFile } from "node:fs/promises";
import { createImage, ImageFile, inspectQcow2 } from "@vmferry/block";
import { messageOf } from "@vmferry/core";
import type { ControlMessageOf, GuestDisk } from "@vmferry/protocol";
import { resolveImage } from "@vmferry/qemu";
import { SessionError } from "../session/session-error.ts";
import { blockBytesFor } from "./block-size.ts";

export type OfferedDisk = ControlMessageOf<"offer">["disks"][number];

const SECTOR_BYTES = 512;

export interface OpenDiskOptions {
  readonly imageDir: string;
  /** Where a copy has its place that QEMU's mirror fills. */
  readonly spoolDir: string;
  readonly migrationId: string;
  /** Raw disks that would be copied follow the guest instead. */
  readonly lazy: boolean;
  /**
   * By disk id, what the guest sees of disks whose QEMU somebody else started: their nodes are not
   * the agent's to change, so QEMU mirrors them. Null for a guest of this agent.
   */
  readonly attachedBytes: Readonly<Record<string, number>> | null;
}

interface Parts {
  readonly sizeBytes: number;
  readonly dataBytes?: number;
  readonly proof?: string;
  readonly image?: ImageFile;
  readonly spooled?: boolean;
  readonly proofPath?: string;
  readonly lazy?: boolean;
}

export class OpenDisk {
  readonly definition: GuestDisk;
  readonly offered: OfferedDisk;
  /** Absolute. */
  readonly path: string;
  /** What is copied from; null where nothing is copied. */
  readonly image: ImageFile | null;
  /** `image` is empty, and QEMU's mirror is to fill it: the agent does not step into the disk's graph. */
  readonly spooled: boolean;
  /** Nothing of it is copied before the hand-over: nobody steps between it and the guest. */
  readonly lazy: boolean;
  readonly #proofPath: string | null;

  private constructor(definition: GuestDisk, path: string, parts: Parts) {
    const { sizeBytes, dataBytes = 0, proof = null } = parts;
    this.definition = definition;
    this.path = path;
    this.lazy = parts.lazy ?? false;
    const blockBytes = blockBytesFor(sizeBytes);
    const lazy = this.lazy ? { lazy: true as const } : {};
    this.offered = { sizeBytes, dataBytes, blockBytes, proof, ...lazy };
    this.image = parts.image ?? null;
    this.spooled = parts.spooled ?? false;
    this.#proofPath = parts.proofPath ?? null;
  }

  /** Rejects with `disk-not-migratable`. Nothing of the guest is touched. */
  static async open(definition: GuestDisk, options: OpenDiskOptions): Promise<OpenDisk> {
    const { id, image: name } = definition;
    try {
      const { path } = await resolveImage({ imageDirectory: options.imageDir, name });
      const disk = new OpenDisk(definition, path, await openParts(definition, path, options));
      if (disk.offered.sizeBytes % SECTOR_BYTES === 0) return disk;
      await disk.close();
      throw new Error("its size is no multiple of 512 bytes");
    } catch (error) {
      const detail = `disk ${id} (${name}) cannot be migrated: ${messageOf(error)}`;
      throw new SessionError(detail, { code: "disk-not-migratable" }, { cause: error });
    }
  }

  async close(): Promise<void> {
    await this.image?.close();
    if (this.#proofPath !== null) await rm(this.#proofPath, { force: true });
  }
}

async function openParts(
  { id, mode, format }: GuestDisk,
  path: string,
  options: OpenDiskOptions,
): Promise<Parts> {
  if (mode === "shared") return proveShared(path, options.migrationId);
  const attachedBytes = options.attachedBytes?.[id];
  if (attachedBytes !== undefined) return openSpool(path, attachedBytes, options);
  const qcow2 = format === "qcow2" ? await inspectQcow2(path) : null;
  if (mode === "scratch") return { sizeBytes: qcow2?.sizeBytes ?? (await rawSize(path)) };
  if (qcow2 !== null) return openSpool(path, qcow2.sizeBytes, options);
  const { lazy } = options;
  const image = await ImageFile.open(path, { readOnly: lazy });
  const { sizeBytes } = image;
  return { sizeBytes, dataBytes: Math.min(sizeBytes, await image.allocatedBytes()), image, lazy };
}

async function proveShared(path: string, migrationId: string): Promise<Parts> {
  const sizeBytes = await rawSize(path);
  return { sizeBytes, ...(await writeImageProof(path, migrationId)) };
}

/** A secret beside the image: whoever sees it there sees the same directory. */
export async function writeImageProof(
  path: string,
  id: string,
): Promise<{ readonly proof: string; readonly proofPath: string }> {
  const proof = randomBytes(32).toString("hex");
  const proofPath = `${path}.vmferry-proof-${id}`;
  await writeFile(proofPath, proof, { mode: 0o600, flag: "wx" });
  return { proof, proofPath };
}

/** The file has no name once it is open, so that it goes with this process whatever happens. */
async function openSpool(
  path: string,
  sizeBytes: number,
  { spoolDir, migrationId }: OpenDiskOptions,
): Promise<Parts> {
  const { blocks } = await stat(path);
  const dataBytes = Math.min(sizeBytes, blocks * SECTOR_BYTES);
  const { image, mark } = await createImage({
    directory: spoolDir,
    name: `${randomBytes(8).toString("hex")}.spool`,
    sizeBytes,
    needBytes: dataBytes,
    mark: { blockBytes: blockBytesFor(sizeBytes), migrationId, epoch: 0 },
  });
  await rm(image.path);
  await mark.remove();
  return { sizeBytes, dataBytes, image, spooled: true };
}

async function rawSize(path: string): Promise<number> {
  const image = await ImageFile.open(path, { readOnly: true });
  await image.close();
  return image.sizeBytes;
}
