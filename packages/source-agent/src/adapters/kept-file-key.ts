/**
 * What opens the page file of a hand-over, beside the store that it is written from: another life of the
 * agent goes on with the file that the dest already looks for.
 */
import { open, readFile, stat } from "node:fs/promises";
import { asPageFileKey, type PageFileKey } from "@vmferry/agent";

const FILE_BYTES_MAX = 4096;

/** @param storePath of the store */
export async function keepFileKey(storePath: string, key: PageFileKey): Promise<void> {
  const file = await open(keyPathOf(storePath), "w", 0o600);
  try {
    await file.writeFile(JSON.stringify(key));
  } finally {
    await file.close();
  }
}

/** Null where there is none, and where it is not whole: then nothing goes by the share. */
export async function readFileKey(storePath: string): Promise<PageFileKey | null> {
  const path = keyPathOf(storePath);
  try {
    if ((await stat(path)).size > FILE_BYTES_MAX) return null;
    return asPageFileKey(JSON.parse(await readFile(path, "utf8")));
  } catch {
    return null;
  }
}

export function keyPathOf(storePath: string): string {
  return `${storePath}.key`;
}
