import { stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";

/** The directory itself, or the nearest one above it that there is: the agent would make the rest. */
export async function nearestDirectory(path: string): Promise<string> {
  let directory = resolve(path);
  for (;;) {
    const isThere = await stat(directory).then(
      () => true,
      (error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
        return false;
      },
    );
    if (isThere || directory === "/") return directory;
    directory = dirname(directory);
  }
}
