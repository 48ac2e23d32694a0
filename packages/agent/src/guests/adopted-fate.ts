import type { QueryStatus } from "@vmferry/qemu";
import type { GuestStage } from "./guest-record.ts";

/** What a restarted agent does with a guest that it finds. */
export type AdoptedFate = "keep" | "resume" | "kill" | "in-doubt";

/**
 * A QEMU that runs is ours to keep: at the dest only a token starts it, and at the source a
 * hand-over leaves it standing still. One that stands still is judged by what was written down
 * before the agent died; where that leaves the answer with the other host, nothing is done.
 */
export function adoptedFate(stage: GuestStage, { status, running }: QueryStatus): AdoptedFate {
  if (running) return "keep";
  switch (stage) {
    case "incoming":
      return "kill";
    case "prepared":
    case "handed-off":
      return "in-doubt";
    case "owned":
      // The agent died between SHUT and the hand-over: no token was ever sent.
      return status === "postmigrate" ? "resume" : "keep";
  }
}
