/**
 * Where a restarted source agent goes on with a guest: from the last durable record of its journal
 * and from what QEMU does now. Pure, like the transitions that it leads into.
 *
 * Only what these transitions can have left behind is acted on. Anything else is `unclear`: a
 * journal that knows of no migration beside a QEMU that stands still for one is not the journal
 * that began it, and a guest that runs although it was handed over was started by somebody.
 */
import { unreachable } from "@vmferry/core";
import type { SeenQemu } from "./seen-qemu.ts";
import { rollBack, type SourceAction, type SourceRecord } from "./source-ownership.ts";
import type { SourceOwnership, SourceStep } from "./source-ownership.ts";
import type { StunRef } from "./stun-ref.ts";

export interface SourceFound {
  /** Null when this guest was never offered to anybody. */
  readonly last: SourceRecord | null;
  readonly qemu: SeenQemu;
  /** The epoch in which it was started or came here; a record knows better. */
  readonly epoch: number;
}

export function recoverSource({ last, qemu, epoch }: SourceFound): SourceStep {
  switch (last?.record) {
    case undefined:
      return lives(qemu) || qemu === "gone" ? step({ phase: "owner", epoch }) : unclear(null);
    case "begin":
      return recoverBegun(last, qemu);
    case "handed-off":
    case "released": {
      // A dead QEMU changes nothing: the dest has all of the guest, and may have taken it.
      if (qemu !== "postmigrate" && qemu !== "gone") return leftAlone(last, qemu);
      const { record: phase, stun, incarnation } = last;
      return step({ phase, stun, incarnation }, { do: "send-token", stun });
    }
    case "reclaimed":
      if (qemu === "postmigrate") {
        return step({ phase: "reclaimed", epoch: last.epoch }, { do: "resume-guest" });
      }
      return recoverOwned(last, qemu);
    case "kept":
      return recoverOwned(last, qemu);
    case "done":
      if (qemu === "gone") return step({ phase: "done", epoch: last.epoch });
      return qemu === "postmigrate"
        ? step({ phase: "done", epoch: last.epoch }, { do: "quit-guest" })
        : leftAlone(last, qemu);
    default:
      return unreachable(last);
  }
}

/** No token was ever sent, so the guest stays here, whatever it was stopped by. */
function recoverBegun({ stun }: SourceRecord, qemu: SeenQemu): SourceStep {
  switch (qemu) {
    case "gone":
      // There is nothing to bring back; its disks are here, and whole.
      return step({ phase: "owner", epoch: stun.epoch - 1 }, { do: "send-abort", stun });
    case "running":
    case "halted":
    case "paused":
    case "finish-migrate":
    case "postmigrate":
      return rollBack(stun);
    case "inmigrate":
      return unclear(stun);
    default:
      return unreachable(qemu);
  }
}

/** Nothing is under way: a guest that stands still for a migration was not left so by us. */
function recoverOwned({ epoch, stun }: SourceRecord, qemu: SeenQemu): SourceStep {
  return lives(qemu) || qemu === "gone" ? step({ phase: "owner", epoch }) : unclear(stun);
}

/** It runs, or stands still as any guest may that nobody moves. */
function lives(qemu: SeenQemu): boolean {
  return qemu === "running" || qemu === "halted" || qemu === "paused";
}

/** What was given away must not go on running here, whoever started it. */
function leftAlone(last: SourceRecord, qemu: SeenQemu): SourceStep {
  const { state } = unclear(last.stun, "incarnation" in last ? last.incarnation : null);
  return qemu === "running" ? step(state, { do: "halt-guest" }) : step(state);
}

function unclear(stun: StunRef | null, incarnation: string | null = null): SourceStep {
  return step({ phase: "unclear", stun, incarnation });
}

function step(state: SourceOwnership, ...actions: SourceAction[]): SourceStep {
  return { state, actions };
}
