/**
 * The images of disks that follow a guest, kept as they were when it left: locked, so that no QEMU
 * gets to write to them as long as they are open, and compared with what was noted of them, for
 * somebody may have written while no agent kept them.
 */
import { ImageFile, lockImageStill } from "@vmferry/block";
import { messageOf } from "@vmferry/core";
import type { FollowingDisk, LeftDisk } from "../adapters/left-disks.ts";
import { SessionError } from "../session/session-error.ts";

export interface StillImage {
  readonly left: LeftDisk;
  readonly image: ImageFile;
}

export class StillImages {
  readonly all: readonly StillImage[];

  private constructor(all: readonly StillImage[]) {
    this.all = all;
  }

  /** Rejects where one is being written to, or was since the guest left. */
  static async open(disks: readonly LeftDisk[]): Promise<StillImages> {
    const all: StillImage[] = [];
    try {
      for (const left of disks) {
        const image = await ImageFile.open(left.path, { readOnly: true });
        all.push({ left, image });
        // Nobody can write between the lock and the look.
        await lockImageStill(image);
        await refuseChanged(image, left);
      }
    } catch (error) {
      await new StillImages(all).close();
      throw new SessionError(messageOf(error), { code: "source-disk-failed" }, { cause: error });
    }
    return new StillImages(all);
  }

  /** Lets go of them: the guest may have them back. */
  async close(): Promise<void> {
    for (const { image } of this.all) await image.close();
  }
}

/** The guest stands still and has written everything: what an image must look like from now on. */
export async function noteLeft(disk: FollowingDisk): Promise<LeftDisk> {
  const image = await ImageFile.open(disk.path, { readOnly: true });
  try {
    const writtenAtNs = await image.writtenAtNs();
    return writtenAtNs === null ? disk : { ...disk, writtenAtNs: String(writtenAtNs) };
  } finally {
    await image.close();
  }
}

async function refuseChanged(image: ImageFile, left: LeftDisk): Promise<void> {
  const { path, sizeBytes } = left;
  if (image.sizeBytes !== sizeBytes) {
    throw new Error(`${path} has ${image.sizeBytes} bytes, and had ${sizeBytes} at the hand-over`);
  }
  const writtenAtNs = await image.writtenAtNs();
  // A device does not tell, nor does what an older agent has noted.
  if (writtenAtNs === null || left.writtenAtNs === undefined) return;
  if (String(writtenAtNs) === left.writtenAtNs) return;
  throw new Error(
    `${path} was written to at ${asDate(writtenAtNs)}, after the guest had left it at ` +
      asDate(BigInt(left.writtenAtNs)),
  );
}

/** As `touch -d` takes it, for whoever knows that the image was touched and not written to. */
function asDate(ns: bigint): string {
  const toTheSecond = new Date(Number(ns / 1_000_000n)).toISOString().slice(0, -4);
  return `${toTheSecond}${String(ns % 1_000_000_000n).padStart(9, "0")}Z`;
}
