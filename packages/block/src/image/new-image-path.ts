import { realpath } from "node:fs/promises";
import { basename, dirname, isAbsolute, join, sep } from "node:path";
import { messageOf } from "@vmferry/core";
import { imageNotUsable } from "./image-error.ts";
import { isMapName } from "./map-storage.ts";
import { isMarkName } from "./partial-mark.ts";

/**
 * Where an image of that name has its place: in the directory or in one of its subdirectories,
 * which is there already. Nothing is said of the place itself. Rejects with `image-not-usable`.
 */
export async function newImagePath(directory: string, name: string): Promise<string> {
  const segments = name.split("/");
  const isPlain = segments.every((part) => part !== "" && part !== "." && part !== "..");
  if (!isPlain || name.includes("\0") || isAbsolute(name)) {
    throw imageNotUsable(JSON.stringify(name), "no image can have that name");
  }
  if (isMarkName(name) || isMapName(name)) {
    throw imageNotUsable(name, "the name is one of a mark beside an image");
  }
  const [root, parent] = await resolveBoth(directory, dirname(name));
  if (parent !== root && !parent.startsWith(root.endsWith(sep) ? root : root + sep)) {
    throw imageNotUsable(name, "its place is not inside the image directory");
  }
  return join(parent, basename(name));
}

async function resolveBoth(directory: string, below: string): Promise<[string, string]> {
  try {
    return await Promise.all([realpath(directory), realpath(join(directory, below))]);
  } catch (cause) {
    throw imageNotUsable(below, messageOf(cause), cause);
  }
}
