/**
 * Marks beside the images of guests: what an agent may do with an image that a migration filled or
 * left behind. The images themselves are the block package's.
 */
import { rm } from "node:fs/promises";
import { inspectQcow2, MapFile, PartialMark } from "@vmferry/block";
import type { GuestDefinition } from "@vmferry/protocol";
import { resolveImage } from "@vmferry/qemu";
import { ProblemError } from "../problem-error.ts";

/** A bit of a mark that says nothing of single blocks. */
const BLOCK_BYTES = 1024 * 1024;

type Disks = GuestDefinition["disks"];

/**
 * Throws `image-incomplete` or `image-handed-off`, for a guest must not be started on half a disk,
 * and `image-not-usable` for a qcow2 image that leads to other files.
 */
export async function refuseUnfitImages(disks: Disks, imageDir: string): Promise<void> {
  for (const { image: name, format } of disks) {
    const { path } = await resolveImage({ imageDirectory: imageDir, name });
    if (format === "qcow2") await inspectQcow2(path);
    await refuseMarked(name, path);
  }
}

/**
 * Throws as `refuseUnfitImages` does for images that a QEMU has open already. Where it waits for a
 * guest, what a device holds does not matter: it is for the offer to say whether that may be lost.
 */
export async function refuseMarkedImages(
  disks: Disks,
  { imageDir, waiting }: { readonly imageDir: string; readonly waiting: boolean },
): Promise<void> {
  for (const { image: name } of disks) {
    const { path, kind } = await resolveImage({ imageDirectory: imageDir, name });
    if (!waiting || kind === "file") await refuseMarked(name, path);
  }
}

async function refuseMarked(name: string, path: string): Promise<void> {
  const mark = await PartialMark.read(path);
  if (mark === null) return;
  if (mark !== "damaged" && mark.state === "left") {
    throw new ProblemError(
      `The guest of the image ${name} has moved away with a newer content. Where it shall start ` +
        `from this old one all the same, remove ${name}.vmferry first.`,
      { code: "image-handed-off" },
    );
  }
  if (mark !== "damaged" && mark.state === "lazy") {
    throw new ProblemError(
      `A part of the image ${name} is still at the host that its guest came from: only the agent ` +
        `can put the two together (${name}.vmferry-present says which part).`,
      { code: "image-incomplete" },
    );
  }
  throw new ProblemError(
    `The image ${name} is being filled, or was when a migration ended: ${name}.vmferry says so.`,
    { code: "image-incomplete" },
  );
}

/**
 * The guest is owned here: what a migration filled is an ordinary image, and nothing was left. Of an
 * image that is `lazy` a part is still missing: that one stays marked.
 */
export async function acceptImages(disks: Disks, imageDir: string): Promise<void> {
  for (const { path, mark } of await marked(disks, imageDir)) {
    if (mark.state === "filling" || mark.state === "lazy") continue;
    await MapFile.remove(path);
    await mark.remove();
  }
}

/** Has a migration filled one of the images to its end? Then it may be the only one that is up to date. */
export async function hasWholeImage(disks: Disks, imageDir: string): Promise<boolean> {
  return (await marked(disks, imageDir)).some(({ mark }) => mark.state === "whole");
}

/** The guest never ran here: what a migration filled is void. */
export async function discardImages(disks: Disks, imageDir: string): Promise<void> {
  for (const { path, mark, kind } of await marked(disks, imageDir)) {
    if (mark.state === "left") continue;
    // A device stays, and so does what says that it holds half of something.
    if (kind !== "file") continue;
    await rm(path, { force: true });
    await MapFile.remove(path);
    await mark.remove();
  }
}

/** The guest has gone: nobody may start it again from what it left here. */
export async function markImagesLeft(
  images: readonly { readonly path: string; readonly sizeBytes: number }[],
  migration: { readonly migrationId: string; readonly epoch: number },
): Promise<void> {
  for (const { path, sizeBytes } of images) {
    const subject = { imageBytes: sizeBytes, blockBytes: BLOCK_BYTES, ...migration };
    const mark = await PartialMark.replace(path, subject);
    await mark.update({ state: "left" });
  }
}

/** The guest was handed over and has come back: its images are its disks again. */
export async function unmarkImagesLeft(
  images: readonly { readonly path: string }[],
): Promise<void> {
  for (const { path } of images) {
    const mark = await PartialMark.read(path);
    if (mark instanceof PartialMark && mark.state === "left") await mark.remove();
  }
}

interface Marked {
  readonly path: string;
  readonly kind: "file" | "host-device";
  readonly mark: PartialMark;
}

async function marked(disks: Disks, imageDir: string): Promise<Marked[]> {
  const found: Marked[] = [];
  for (const { image: name } of disks) {
    // An image that is not there has nothing to be said of.
    const image = await resolveImage({ imageDirectory: imageDir, name }).catch(() => null);
    if (image === null) continue;
    const mark = await PartialMark.read(image.path);
    if (mark !== null && mark !== "damaged") found.push({ ...image, mark });
  }
  return found;
}
