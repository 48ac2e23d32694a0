import { constants } from "node:fs";
import { open } from "node:fs/promises";

/** Makes durable which names a directory holds. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
