import { ImageFile, inspectQcow2 } from "@vmferry/block";
import type { GuestDefinition } from "@vmferry/protocol";
import { resolveImage } from "@vmferry/qemu";

/** What the guest sees of each of its disks, by id; without those that cannot be looked at. */
export async function diskSizesOf(
  disks: GuestDefinition["disks"],
  imageDir: string,
): Promise<ReadonlyMap<string, number>> {
  const sizes = new Map<string, number>();
  for (const { id, image: name, format } of disks) {
    try {
      const { path } = await resolveImage({ imageDirectory: imageDir, name });
      sizes.set(
        id,
        format === "qcow2" ? (await inspectQcow2(path)).sizeBytes : await rawSize(path),
      );
    } catch {
      // It stays unknown: QEMU says more clearly what is wrong with an image than this could.
    }
  }
  return sizes;
}

async function rawSize(path: string): Promise<number> {
  const image = await ImageFile.open(path, { readOnly: true });
  await image.close();
  return image.sizeBytes;
}
