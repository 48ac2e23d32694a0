import { stat } from "node:fs/promises";

/** False where there is certainly no such file: one that cannot be looked at may be there. */
export async function mayExist(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ENOENT";
  }
}
