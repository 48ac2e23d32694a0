/** What the kernel says of one process: whether it lives, stands still, or has ended. */
import { readFileSync } from "node:fs";

export type ProcessState = "alive" | "stopped" | "gone";

export function processState(pid: number): ProcessState {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return "gone";
  }
  // Behind the name, which is in parentheses and may hold anything.
  const letter = stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3);
  if (letter === "Z" || letter === "X") return "gone";
  return letter === "T" ? "stopped" : "alive";
}
