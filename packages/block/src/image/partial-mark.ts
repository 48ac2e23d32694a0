/**
 * The file beside an image that is being filled: which blocks are present, and whose they are. It
 * is there from before the image is until somebody decides that the image is good, so that an image
 * without one was never half of something.
 *
 * A mark is replaced as a whole, by a rename: after a crash either the old one is there or the new
 * one. It must not say more than the disk holds, so that the image is flushed before each update
 * that sets bits. One program at a time, the holder of the image's lock, writes it.
 */
import { constants } from "node:fs";
import { lstat, open, rename, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { failpoint, InvariantError, messageOf } from "@vmferry/core";
import { readFully } from "./descriptor-io.ts";
import { ImageError, imageNotUsable } from "./image-error.ts";
import {
  bitmapBytesOf,
  decodeMark,
  encodeMark,
  fullBitmap,
  MARK_BYTES_MAX,
  MARK_HEADER_BYTES,
  markBytesOf,
  readMarkBytes,
  type MarkContent,
  type MarkState,
  type MarkSubject,
} from "./mark-codec.ts";
import { checkOwnFile, removeOwnFile } from "./own-file.ts";
import { syncDirectory } from "./sync-directory.ts";

const MARK_SUFFIX = ".vmferry";
const NEW_SUFFIX = ".new";

export interface MarkUpdate {
  readonly bitmap?: Uint8Array;
  readonly state?: MarkState;
}

export class PartialMark {
  readonly path: string;
  readonly subject: MarkSubject;
  readonly #imagePath: string;
  #state: MarkState;
  #bitmap: Uint8Array;
  #turn: Promise<unknown> = Promise.resolve();

  /** With no block present. Rejects with `image-exists` where there is a mark already. */
  static async create(imagePath: string, subject: MarkSubject): Promise<PartialMark> {
    if (await isIncomplete(imagePath)) {
      const reason = "it has a mark already";
      throw new ImageError(`the image ${imagePath} is being filled: ${reason}`, {
        code: "image-exists",
        path: imagePath,
        reason,
      });
    }
    return PartialMark.replace(imagePath, subject);
  }

  /** As `create`, in the place of whatever mark there is. At no time is there none. */
  static async replace(imagePath: string, subject: MarkSubject): Promise<PartialMark> {
    if (markBytesOf(subject) > MARK_BYTES_MAX) {
      throw imageNotUsable(imagePath, "it has too many blocks to keep track of");
    }
    const bitmap = Buffer.alloc(bitmapBytesOf(subject));
    const mark = new PartialMark(imagePath, { ...subject, state: "filling", bitmap });
    await mark.update({});
    return mark;
  }

  /** Null where there is none. Rejects with `image-not-usable` where it cannot be read. */
  static async read(imagePath: string): Promise<PartialMark | "damaged" | null> {
    try {
      const content = await readContent(markPathOf(imagePath));
      return content === "damaged" || content === null
        ? content
        : new PartialMark(imagePath, content);
    } catch (cause) {
      throw imageNotUsable(imagePath, `its mark cannot be read: ${messageOf(cause)}`, cause);
    }
  }

  private constructor(imagePath: string, { state, bitmap, ...subject }: MarkContent) {
    this.#imagePath = imagePath;
    this.path = markPathOf(imagePath);
    this.subject = subject;
    this.#state = state;
    this.#bitmap = bitmap;
  }

  /** As the last update left it. */
  get state(): MarkState {
    return this.#state;
  }

  /** A copy of what the last update left. Bit 0 of byte 0 is for the first block. */
  bitmap(): Uint8Array {
    return Uint8Array.from(this.#bitmap);
  }

  /**
   * Resolves when it is durable; what is not given stays as it was. After a failure the file says
   * what it said before or what it was to say, and nothing between.
   */
  update({ bitmap, state }: MarkUpdate): Promise<void> {
    // The caller may go on changing its bitmap, and the update may have to wait for its turn.
    const copied = bitmap === undefined ? undefined : Uint8Array.from(bitmap);
    return this.#inTurn("cannot be written", async () => {
      const next = { state: state ?? this.#state, bitmap: copied ?? this.#bitmap };
      failpoint("mark.write.before");
      await replaceFile(this.path, encodeMark({ ...this.subject, ...next }));
      failpoint("mark.write.after");
      this.#state = next.state;
      this.#bitmap = next.bitmap;
    });
  }

  /** As `update`: every block is present, and the image whole. */
  complete(): Promise<void> {
    return this.update({ bitmap: fullBitmap(this.subject), state: "whole" });
  }

  /** The image is good from here on, or gone. Resolves when that is durable. */
  remove(): Promise<void> {
    return this.#inTurn("cannot be removed", async () => {
      failpoint("mark.remove.before");
      await removeMarkFile(this.path);
      failpoint("mark.remove.after");
    });
  }

  #inTurn(failure: string, work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work).catch((cause: unknown) => {
      if (cause instanceof InvariantError) throw cause;
      throw imageNotUsable(this.#imagePath, `its mark ${failure}: ${messageOf(cause)}`, cause);
    });
    this.#turn = done.catch(() => undefined);
    return done;
  }
}

/**
 * Whether an image has a mark of any kind, be it damaged or one that says `whole`: a guest that was
 * started on such an image could run on half a disk. PartialMark.read tells more.
 */
export async function isIncomplete(imagePath: string): Promise<boolean> {
  try {
    return (await find(markPathOf(imagePath))) !== "nothing";
  } catch (cause) {
    throw imageNotUsable(imagePath, `its mark cannot be found: ${messageOf(cause)}`, cause);
  }
}

/** Rejects with `image-not-usable` where something is in the mark's place that is not ours. */
export async function checkMarkPlace(imagePath: string): Promise<void> {
  try {
    await checkOwnFile(markPathOf(imagePath));
  } catch (cause) {
    throw imageNotUsable(imagePath, `its mark is not ours: ${messageOf(cause)}`, cause);
  }
}

/** Whether a name is one that a mark could have, or a mark that is being written. */
export function isMarkName(name: string): boolean {
  return name.endsWith(MARK_SUFFIX) || name.endsWith(MARK_SUFFIX + NEW_SUFFIX);
}

function markPathOf(imagePath: string): string {
  return imagePath + MARK_SUFFIX;
}

async function find(path: string): Promise<"nothing" | "file" | "other"> {
  try {
    return (await lstat(path)).isFile() ? "file" : "other";
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "nothing";
    throw error;
  }
}

async function readContent(path: string): Promise<MarkContent | "damaged" | null> {
  const found = await find(path);
  if (found === "nothing") return null;
  // It cannot be a mark, and opening it could have effects of its own.
  if (found === "other") return "damaged";
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  const handle = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const { size } = await handle.stat();
    // Nothing is allocated for a length that the file does not have.
    const bytes = readMarkBytes(await readBytes(handle, MARK_HEADER_BYTES));
    if (bytes === null || bytes !== size) return "damaged";
    return decodeMark(await readBytes(handle, bytes)) ?? "damaged";
  } finally {
    await handle.close();
  }
}

async function readBytes(handle: FileHandle, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  return buffer.subarray(0, await readFully(handle.fd, buffer, 0));
}

async function replaceFile(path: string, bytes: Buffer): Promise<void> {
  const written = path + NEW_SUFFIX;
  await checkOwnFile(path);
  await removeOwnFile(written);
  const handle = await open(written, "wx", 0o600);
  try {
    await handle.writeFile(bytes);
    await handle.datasync();
  } finally {
    await handle.close();
  }
  await rename(written, path);
  await syncDirectory(dirname(path));
}

async function removeMarkFile(path: string): Promise<void> {
  await removeOwnFile(path + NEW_SUFFIX);
  await removeOwnFile(path);
  await syncDirectory(dirname(path));
}
