/** What the guest's disks are, without opening them for a migration. */
import { stat } from "node:fs/promises";
import { ImageFile, inspectQcow2 } from "@vmferry/block";
import { messageOf } from "@vmferry/core";
import type { GuestDisk } from "@vmferry/protocol";
import { resolveImage } from "@vmferry/qemu";

const SECTOR_BYTES = 512;

export interface MeasuredDisk {
  readonly definition: GuestDisk;
  readonly path: string;
  readonly sizeBytes: number;
  /** What a copy of it takes; 0 where nothing is copied. */
  readonly dataBytes: number;
}

/** Rejects with why one of them cannot be migrated. */
export async function measureDisks(
  definitions: readonly GuestDisk[],
  imageDir: string,
): Promise<readonly MeasuredDisk[]> {
  const measured: MeasuredDisk[] = [];
  for (const definition of definitions) {
    try {
      measured.push(await measure(definition, imageDir));
    } catch (error) {
      const { id, image } = definition;
      throw new Error(`disk ${id} (${image}): ${messageOf(error)}`, { cause: error });
    }
  }
  return measured;
}

async function measure(definition: GuestDisk, imageDir: string): Promise<MeasuredDisk> {
  const { mode, format, image: name } = definition;
  const { path } = await resolveImage({ imageDirectory: imageDir, name });
  // The file of a shared disk is compared as it is.
  const isQcow2 = format === "qcow2" && mode !== "shared";
  const measured = isQcow2 ? await measureQcow2(path) : await measureRaw(path);
  const { sizeBytes } = measured;
  if (sizeBytes % SECTOR_BYTES !== 0) throw new Error("its size is no multiple of 512 bytes");
  const dataBytes = mode === "copy" ? Math.min(sizeBytes, measured.takenBytes) : 0;
  return { definition, path, sizeBytes, dataBytes };
}

type Measured = Pick<MeasuredDisk, "sizeBytes"> & { readonly takenBytes: number };

async function measureQcow2(path: string): Promise<Measured> {
  const { sizeBytes } = await inspectQcow2(path);
  const { blocks } = await stat(path);
  return { sizeBytes, takenBytes: blocks * SECTOR_BYTES };
}

async function measureRaw(path: string): Promise<Measured> {
  const image = await ImageFile.open(path, { readOnly: true });
  try {
    return { sizeBytes: image.sizeBytes, takenBytes: await image.allocatedBytes() };
  } finally {
    await image.close();
  }
}
