import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { syncDirectory } from "@vmferry/block";

/** Replaces the file as a whole, for this user only. Durable when it resolves. */
export async function writeDurably(path: string, text: string): Promise<void> {
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
  await syncDirectory(dirname(path));
}
