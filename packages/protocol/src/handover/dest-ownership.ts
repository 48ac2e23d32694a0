/**
 * Who owns the guest, as the dest sees it. Pure: (state, event) → state and actions, in order.
 *
 *   none ──offer──▶ loading ──loaded──▶ loaded ──stunned──┐ digests equal
 *                     └────stunned──▶ expecting ──loaded──┴──▶ prepared ──token──▶ taken ──running──▶ fetching ──whole──▶ owner
 *                     │                  │                        │                  │
 *                     └──────────────────┴── failed, abort ───────┴──▶ refused ◀─────┘ cont-failed
 *
 * The dest is never in doubt: before `taken` it may refuse at any time, and a refusal is for ever.
 * Its QEMU is started by `taken` alone. In `fetching` the guest runs, and what is missing of it still
 * comes from the source, which keeps it until COMPLETE; where nothing is missing that is over at once.
 *
 * A restarted agent begins where `recoverDest` puts it. What an earlier life has taken may have run,
 * so it is never refused again:
 *
 *   restarting ──running──▶ fetching ◀──running── down     down: ours, but a person has to start it
 *        └────── cont-failed, died ─────────────────▲──died── taken, fetching
 */
import { unreachable } from "@vmferry/core";
import { illegalEvent } from "./ownership-error.ts";
import { sameStun, type StunRef } from "./stun-ref.ts";

export type DestOwnership =
  | { readonly phase: "none" }
  | { readonly phase: "loading"; readonly stun: StunRef }
  /** QEMU has loaded everything; the source's digest is still under way. */
  | { readonly phase: "loaded"; readonly stun: StunRef; readonly digest: string }
  /** The source's digest is here; QEMU is still loading. */
  | { readonly phase: "expecting"; readonly stun: StunRef; readonly digest: string }
  | { readonly phase: "prepared"; readonly stun: StunRef; readonly digest: string }
  | { readonly phase: "taken"; readonly stun: StunRef }
  /** Taken in an earlier life, and started once more. */
  | { readonly phase: "restarting"; readonly stun: StunRef }
  /** Ours, and it runs here; the source still has what is missing of it. */
  | { readonly phase: "fetching"; readonly stun: StunRef }
  /** Taken, and it does not run here: its QEMU is dead or will not start it. */
  | { readonly phase: "down"; readonly stun: StunRef }
  | { readonly phase: "owner"; readonly stun: StunRef }
  | { readonly phase: "refused"; readonly stun: StunRef }
  /** What was written down and what QEMU does do not go together: a person has to look. `stun` is null without a record. */
  | { readonly phase: "unclear"; readonly stun: StunRef | null };

export type DestEvent =
  | { readonly kind: "offer"; readonly stun: StunRef }
  /** QEMU answered SHUT 0 and stands still; the digest is over what it was fed. */
  | { readonly kind: "loaded"; readonly digest: string }
  | { readonly kind: "stunned"; readonly stun: StunRef; readonly digest: string }
  | { readonly kind: "token"; readonly stun: StunRef }
  | { readonly kind: "abort"; readonly stun: StunRef }
  | { readonly kind: "running" }
  /** Nothing of it is missing here any more. */
  | { readonly kind: "whole" }
  /** `cont` failed and QEMU is seen not to have run. */
  | { readonly kind: "cont-failed" }
  /** Its QEMU is gone. */
  | { readonly kind: "died" }
  /** A person says whose the guest is, and that the other side cannot run it. */
  | { readonly kind: "settled"; readonly owner: "source" | "dest" }
  | { readonly kind: "failed"; readonly code: string };

/** What a restarted agent knows. */
export type DestRecord =
  | { readonly record: "reserved" | "taken" | "complete"; readonly stun: StunRef }
  | { readonly record: "refused"; readonly stun: StunRef; readonly code: string }
  | { readonly record: "prepared"; readonly stun: StunRef; readonly digest: string };

export type DestAction =
  /** Made durable before the actions that follow it. */
  | (DestRecord & { readonly do: "record" })
  | { readonly do: "send-prepared"; readonly stun: StunRef; readonly digest: string }
  | { readonly do: "send-taken"; readonly stun: StunRef }
  | { readonly do: "send-running"; readonly stun: StunRef }
  | { readonly do: "send-complete"; readonly stun: StunRef }
  | { readonly do: "send-refused"; readonly stun: StunRef; readonly code: string }
  | { readonly do: "start-guest"; readonly stun: StunRef }
  /** Get what is missing, and say `whole` when nothing is. */
  | { readonly do: "fetch" }
  | { readonly do: "kill-guest" };

export interface DestStep {
  readonly state: DestOwnership;
  readonly actions: readonly DestAction[];
}

export function nextDestOwnership(state: DestOwnership, event: DestEvent): DestStep {
  switch (state.phase) {
    case "none":
      if (event.kind !== "offer") return refuse(state, event);
      return step(
        { phase: "loading", stun: event.stun },
        { do: "record", record: "reserved", stun: event.stun },
      );
    case "loading":
      return fromLoading(state, event);
    case "loaded":
      if (event.kind !== "stunned") return beforeTaken(state, event);
      return compare(state.stun, event.stun, [event.digest, state.digest]);
    case "expecting":
      if (event.kind !== "loaded") return beforeTaken(state, event);
      return compare(state.stun, state.stun, [state.digest, event.digest]);
    case "prepared":
      return fromPrepared(state, event);
    case "taken":
      return fromTaken(state, event);
    case "restarting":
      return fromRestarting(state, event);
    case "fetching":
      return fromFetching(state, event);
    case "down":
      return fromDown(state, event);
    case "owner":
      return fromOwner(state, event);
    case "refused":
      return fromRefused(state, event);
    case "unclear":
      return fromUnclear(state, event);
    default:
      return unreachable(state);
  }
}

function fromLoading(state: DestOwnership & { phase: "loading" }, event: DestEvent): DestStep {
  const { stun } = state;
  if (event.kind === "loaded") return step({ phase: "loaded", stun, digest: event.digest });
  if (event.kind !== "stunned") return beforeTaken(state, event);
  if (!sameStun(event.stun, stun)) return refusal(stun, "protocol-violation");
  return step({ phase: "expecting", stun, digest: event.digest });
}

function compare(
  stun: StunRef,
  meant: StunRef,
  [expected, loaded]: readonly [string, string],
): DestStep {
  if (!sameStun(meant, stun)) return refusal(stun, "protocol-violation");
  if (expected !== loaded) return refusal(stun, "digest-mismatch");
  return step(
    { phase: "prepared", stun, digest: loaded },
    { do: "record", record: "prepared", stun, digest: loaded },
    { do: "send-prepared", stun, digest: loaded },
  );
}

function fromPrepared(state: DestOwnership & { phase: "prepared" }, event: DestEvent): DestStep {
  const { stun, digest } = state;
  if (event.kind === "stunned") return step(state, { do: "send-prepared", stun, digest });
  if (event.kind === "settled") {
    return event.owner === "dest" ? take("taken", stun) : refusal(stun, "cancelled");
  }
  if (event.kind !== "token") return beforeTaken(state, event);
  // A token for another stun was overtaken by events; it is not ours to act on.
  return sameStun(event.stun, stun) ? take("taken", stun) : step(state);
}

/** The part that every state before `taken` shares: giving up is always possible. */
function beforeTaken(
  state: DestOwnership & { readonly stun: StunRef },
  event: DestEvent,
): DestStep {
  if (event.kind === "failed") return refusal(state.stun, event.code);
  if (event.kind === "died") return refusal(state.stun, "dest-qemu-died");
  if (event.kind === "abort") {
    return sameStun(event.stun, state.stun) ? refusal(state.stun, "cancelled") : step(state);
  }
  return refuse(state, event);
}

function fromTaken(state: DestOwnership & { phase: "taken" }, event: DestEvent): DestStep {
  const { stun } = state;
  switch (event.kind) {
    case "running":
      return runs(stun);
    case "cont-failed":
      return refusal(stun, "dest-qemu-failed");
    case "died":
      return goDown(stun);
    case "token":
    case "failed":
      // It may have run: it is ours, whatever happens to the link.
      return step(state);
    case "offer":
    case "loaded":
    case "stunned":
    case "abort":
    case "settled":
    case "whole":
      return refuse(state, event);
    default:
      return unreachable(event);
  }
}

function fromRestarting(
  state: DestOwnership & { phase: "restarting" },
  event: DestEvent,
): DestStep {
  switch (event.kind) {
    case "running":
      return runs(state.stun);
    case "cont-failed":
    // That it does not run now says nothing about what it did in the earlier life.
    case "died":
      return goDown(state.stun);
    case "token":
    case "failed":
      return step(state);
    case "offer":
    case "loaded":
    case "stunned":
    case "abort":
    case "settled":
    case "whole":
      return refuse(state, event);
    default:
      return unreachable(event);
  }
}

function fromFetching(state: DestOwnership & { phase: "fetching" }, event: DestEvent): DestStep {
  const { stun } = state;
  switch (event.kind) {
    case "whole":
      return step(
        { phase: "owner", stun },
        { do: "record", record: "complete", stun },
        { do: "send-complete", stun },
      );
    case "died":
      return goDown(stun);
    case "token":
      return sameStun(event.stun, stun)
        ? step(state, { do: "send-taken", stun }, { do: "send-running", stun })
        : step(state);
    case "failed":
    // `cont` was repeated, and heard the first time.
    case "running":
      return step(state);
    case "offer":
    case "loaded":
    case "stunned":
    case "abort":
    case "cont-failed":
    case "settled":
      return refuse(state, event);
    default:
      return unreachable(event);
  }
}

function fromDown(state: DestOwnership & { phase: "down" }, event: DestEvent): DestStep {
  const { stun } = state;
  switch (event.kind) {
    case "running":
      return runs(stun);
    case "settled":
      // It is started, or given up, from the disks that are here: the source may let go of it.
      return event.owner === "dest"
        ? step(
            { phase: "owner", stun },
            { do: "send-taken", stun },
            { do: "send-running", stun },
            { do: "record", record: "complete", stun },
            { do: "send-complete", stun },
          )
        : refuse(state, event);
    case "token":
      return sameStun(event.stun, stun) ? step(state, { do: "send-taken", stun }) : step(state);
    case "failed":
    // The last page came, and then it died.
    case "whole":
    case "died":
    // QEMU died before this was heard of its last `cont`.
    case "cont-failed":
      return step(state);
    case "offer":
    case "loaded":
    case "stunned":
    case "abort":
      return refuse(state, event);
    default:
      return unreachable(event);
  }
}

function fromOwner(state: DestOwnership & { phase: "owner" }, event: DestEvent): DestStep {
  switch (event.kind) {
    case "token":
      return sameStun(event.stun, state.stun) ? step(state, ...announced(state.stun)) : step(state);
    case "failed":
    case "died":
      return step(state);
    case "offer":
    case "loaded":
    case "stunned":
    case "abort":
    case "running":
    case "cont-failed":
    case "settled":
    case "whole":
      return refuse(state, event);
    default:
      return unreachable(event);
  }
}

function fromRefused(state: DestOwnership & { phase: "refused" }, event: DestEvent): DestStep {
  switch (event.kind) {
    case "token":
    case "stunned":
      return step(state, { do: "send-refused", stun: state.stun, code: "peer-refused" });
    case "abort":
    case "failed":
    case "died":
    case "loaded":
      return step(state);
    case "offer":
    case "running":
    case "cont-failed":
    case "settled":
    case "whole":
      return refuse(state, event);
    default:
      return unreachable(event);
  }
}

function fromUnclear(state: DestOwnership & { phase: "unclear" }, event: DestEvent): DestStep {
  switch (event.kind) {
    case "settled":
      if (state.stun === null) return refuse(state, event);
      return event.owner === "dest"
        ? take("restarting", state.stun)
        : refusal(state.stun, "cancelled");
    // No answer is better than a wrong one: the source waits for a person, too.
    case "token":
    case "stunned":
    case "abort":
    case "failed":
    case "died":
      return step(state);
    case "offer":
    case "loaded":
    case "running":
    case "cont-failed":
    case "whole":
      return refuse(state, event);
    default:
      return unreachable(event);
  }
}

/** Recorded before it may run. In `restarting` it may have run before, and is not refused any more. */
function take(phase: "taken" | "restarting", stun: StunRef): DestStep {
  return step(
    { phase, stun },
    { do: "record", record: "taken", stun },
    { do: "start-guest", stun },
  );
}

/** It runs here. */
export function runs(stun: StunRef): DestStep {
  return step(
    { phase: "fetching", stun },
    { do: "send-taken", stun },
    { do: "send-running", stun },
    { do: "fetch" },
  );
}

/** The source learns that it is not its guest any more, and goes on keeping what it has of it. */
export function goDown(stun: StunRef): DestStep {
  return step({ phase: "down", stun }, { do: "send-taken", stun });
}

/** What a source is told that asks again. */
export function announced(stun: StunRef): readonly DestAction[] {
  return [
    { do: "send-taken", stun },
    { do: "send-running", stun },
    { do: "send-complete", stun },
  ];
}

/** The refusal is recorded and its QEMU gone before the source may hear of it. */
export function refusal(stun: StunRef, code: string): DestStep {
  return step(
    { phase: "refused", stun },
    { do: "record", record: "refused", stun, code },
    { do: "kill-guest" },
    { do: "send-refused", stun, code },
  );
}

function step(state: DestOwnership, ...actions: DestAction[]): DestStep {
  return { state, actions };
}

function refuse(state: DestOwnership, event: DestEvent): never {
  return illegalEvent("dest", state.phase, event.kind);
}
