import { realpath, stat } from "node:fs/promises";
import { isAbsolute, join, sep } from "node:path";
import { messageOf } from "@vmferry/core";
import { GuestError } from "./guest-error.ts";

export interface ImagePath {
  readonly kind: "file" | "host-device";
  /** Absolute, without symbolic links. */
  readonly path: string;
}

/**
 * Where a name in a definition leads, inside the image directory. Throws `image-not-found` or
 * `image-outside-directory`. What it returns holds for the moment: whoever may write into the
 * image directory can change it afterwards.
 */
export async function resolveImage(options: {
  readonly imageDirectory: string;
  readonly name: string;
}): Promise<ImagePath> {
  const { imageDirectory, name } = options;
  if (name === "") throw notFound(name, "it has no name");
  if (name.includes("\0")) throw notFound("(a name with NUL in it)", "no file has such a name");
  // Not even a name that goes out and comes back: it would tell what lies outside.
  if (isAbsolute(name) || name.split("/").includes("..")) throw outside(name);
  const [directory, path] = await resolveBoth(imageDirectory, name);
  if (!path.startsWith(directory.endsWith(sep) ? directory : directory + sep)) throw outside(name);
  const stats = await stat(path);
  if (stats.isFile()) return { kind: "file", path };
  if (stats.isBlockDevice()) return { kind: "host-device", path };
  throw notFound(name, "it is neither a regular file nor a block device");
}

async function resolveBoth(imageDirectory: string, name: string): Promise<[string, string]> {
  try {
    return await Promise.all([realpath(imageDirectory), realpath(join(imageDirectory, name))]);
  } catch (cause) {
    throw notFound(name, (cause as NodeJS.ErrnoException).code ?? messageOf(cause), cause);
  }
}

function notFound(name: string, reason: string, cause?: unknown): GuestError {
  return new GuestError(
    `the image ${JSON.stringify(name)} cannot be used: ${reason}`,
    { code: "image-not-found", name, reason },
    { cause },
  );
}

function outside(name: string): GuestError {
  return new GuestError(`the image ${JSON.stringify(name)} is not inside the image directory`, {
    code: "image-outside-directory",
    name,
  });
}
