/** What a restarted agent sees of a guest's QEMU, as far as it matters to who owns the guest. */
export type SeenQemu =
  /** It has exited, or its host was down. */
  | "gone"
  | "running"
  /** It stands still for a reason of the guest's own, so it has run: an I/O error, a panic. */
  | "halted"
  | "paused"
  /** It waits for a migration stream, or loads one: nothing has run in it. */
  | "inmigrate"
  /** Its vCPUs stand still for a migration that it may still end by going on by itself. */
  | "finish-migrate"
  /** Its migration is over; only a `cont` starts it again. */
  | "postmigrate";

/** `status` and `running` are QMP's `query-status`; null when there is no QEMU to ask. */
export function seenQemu(
  answer: { readonly status: string; readonly running: boolean } | null,
): SeenQemu {
  if (answer === null) return "gone";
  if (answer.running) return "running";
  switch (answer.status) {
    case "paused":
    case "inmigrate":
    case "finish-migrate":
    case "postmigrate":
      return answer.status;
    case "prelaunch":
      return "inmigrate";
    default:
      // Whatever it is, it is not known to have never run.
      return "halted";
  }
}
