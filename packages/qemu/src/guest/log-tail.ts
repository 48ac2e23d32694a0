import { open } from "node:fs/promises";

const TAIL_BYTES_MAX = 8 * 1024;
const TAIL_LINES_MAX = 20;

/**
 * The last lines of a log from `fromBytes` on, which is where the run in question began. What is
 * read is bounded, whatever was written.
 */
export async function readLogTail(path: string, fromBytes: number): Promise<readonly string[]> {
  const handle = await open(path, "r");
  try {
    const { size } = await handle.stat();
    const start = Math.max(fromBytes, size - TAIL_BYTES_MAX);
    const buffer = Buffer.alloc(Math.max(0, Math.min(size - start, TAIL_BYTES_MAX)));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, start);
    const lines = buffer.toString("utf8", 0, bytesRead).split("\n");
    // The first line is a part of one when the bound cut it.
    if (start > fromBytes) lines.shift();
    return lines.filter((line) => line.trim() !== "").slice(-TAIL_LINES_MAX);
  } finally {
    await handle.close();
  }
}
