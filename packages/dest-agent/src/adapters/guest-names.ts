import { readdir } from "node:fs/promises";

/**
 * The guests that an earlier life of this agent has left. Rejects where that cannot be told: whoever
 * took them for none would say that nothing of them is missing.
 */
export async function guestNames(guestsDir: string): Promise<string[]> {
  try {
    return await readdir(guestsDir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}
