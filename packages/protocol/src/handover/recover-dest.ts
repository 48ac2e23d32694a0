/**
 * Where a restarted dest agent goes on with a migration: from the last durable record of its journal
 * about it, and from what QEMU does now. Pure, like the transitions that it leads into.
 *
 * Before `taken` refusing is always right, as long as QEMU has evidently not run; from `taken` on it
 * never is. A QEMU that runs without a `taken` was not started by this protocol: `unclear`.
 */
import { unreachable } from "@vmferry/core";
import { announced, goDown, refusal, runs } from "./dest-ownership.ts";
import type { DestAction, DestOwnership, DestRecord, DestStep } from "./dest-ownership.ts";
import type { SeenQemu } from "./seen-qemu.ts";
import type { StunRef } from "./stun-ref.ts";

export interface DestFound {
  /** Null when the journal does not know of this migration. */
  readonly last: DestRecord | null;
  readonly qemu: SeenQemu;
}

export function recoverDest({ last, qemu }: DestFound): DestStep {
  switch (last?.record) {
    case undefined:
      if (qemu === "gone") return step({ phase: "none" });
      // One that stands still may hold what a lost journal had promised: it is left alone.
      return qemu === "inmigrate" ? step({ phase: "none" }, { do: "kill-guest" }) : unclear(null);
    case "reserved":
      return neverRan(qemu) ? refusal(last.stun, "agent-stopped") : unclear(last.stun);
    case "prepared":
      return recoverPrepared(last, qemu);
    case "taken":
      return recoverTaken(last.stun, qemu);
    case "complete":
      // From here on it is a guest like any other, dead or alive.
      return qemu === "inmigrate"
        ? unclear(last.stun)
        : step({ phase: "owner", stun: last.stun }, ...announced(last.stun));
    case "refused": {
      if (!neverRan(qemu)) return unclear(last.stun);
      const { stun, code } = last;
      return step(
        { phase: "refused", stun },
        // The crash may have come before the QEMU of the refusal, or its images, were gone.
        { do: "kill-guest" },
        { do: "send-refused", stun, code },
      );
    }
    default:
      return unreachable(last);
  }
}

function recoverPrepared(
  { stun, digest }: DestRecord & { record: "prepared" },
  qemu: SeenQemu,
): DestStep {
  if (qemu === "paused") {
    return step({ phase: "prepared", stun, digest }, { do: "send-prepared", stun, digest });
  }
  if (!neverRan(qemu)) return unclear(stun);
  return refusal(stun, qemu === "gone" ? "dest-qemu-died" : "agent-stopped");
}

function recoverTaken(stun: StunRef, qemu: SeenQemu): DestStep {
  switch (qemu) {
    case "running":
    case "halted":
      return runs(stun);
    case "paused":
      return step({ phase: "restarting", stun }, { do: "start-guest", stun });
    case "gone":
      return goDown(stun);
    case "inmigrate":
    case "finish-migrate":
    case "postmigrate":
      return unclear(stun);
    default:
      return unreachable(qemu);
  }
}

/** What a dest's QEMU may be without `taken`: started by nobody. */
function neverRan(qemu: SeenQemu): boolean {
  return qemu === "gone" || qemu === "inmigrate" || qemu === "paused";
}

function unclear(stun: StunRef | null): DestStep {
  return step({ phase: "unclear", stun });
}

function step(state: DestOwnership, ...actions: DestAction[]): DestStep {
  return { state, actions };
}
