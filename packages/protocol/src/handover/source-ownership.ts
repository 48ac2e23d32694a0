/**
 * Who owns the guest, as the source sees it. Pure: (state, event) → state and the actions to carry
 * out, in order.
 *
 *   owner ──begin──▶ transfer ──stunned──▶ stunned ──sent──▶ awaiting-prepared
 *     ▲                │                     │                  │ prepared (same stun, same digest)
 *     │                ▼                     ▼                  ▼
 *     └─resumed── rolling-back ◀──failed──────────────────── shutting      SHUT is forwarded here
 *                      ▲                                        │ postmigrate
 *                      │                                        ▼
 *                   reclaimed ◀──refused──────────────────── handed-off    never resumes by itself
 *                                                               │ taken
 *                                                               ▼
 *                                              done ◀─complete─ released
 *
 * Until `handed-off` every failure brings the guest back here. From `handed-off` on nothing but the
 * dest's own refusal, from the incarnation that prepared, may do that; or a witness, where there is
 * one, that gave the last word to the source before the dest had it. A restarted agent begins where
 * `recoverSource` puts it; from `unclear` only a person leads on. A person who has made sure that the
 * other side does not run may also end `handed-off` and `released`: `settled`. But what follows the
 * guest is let go of by the dest's own `complete` alone: while there is any, a person's word for the
 * dest leads to `released` and no further.
 */
import { unreachable } from "@vmferry/core";
import { illegalEvent } from "./ownership-error.ts";
import { sameStun, type StunRef } from "./stun-ref.ts";

export type SourceOwnership =
  | { readonly phase: "owner"; readonly epoch: number }
  | { readonly phase: "transfer"; readonly stun: StunRef }
  | { readonly phase: "stunned"; readonly stun: StunRef }
  | { readonly phase: "awaiting-prepared"; readonly stun: StunRef; readonly digest: string }
  | {
      readonly phase: "shutting";
      readonly stun: StunRef;
      readonly digest: string;
      readonly incarnation: string;
    }
  | { readonly phase: "rolling-back"; readonly stun: StunRef }
  | { readonly phase: "handed-off"; readonly stun: StunRef; readonly incarnation: string }
  | { readonly phase: "released"; readonly stun: StunRef; readonly incarnation: string }
  | { readonly phase: "reclaimed"; readonly epoch: number }
  | { readonly phase: "done"; readonly epoch: number }
  /** What was written down and what QEMU does do not go together: a person has to look. */
  | Unclear;

/**
 * `stun`: what the last record is about, null where there is none. `incarnation`: of the dest that may
 * have got a token for it and not everything else; null where there is none.
 */
export interface Unclear {
  readonly phase: "unclear";
  readonly stun: StunRef | null;
  readonly incarnation: string | null;
}

export type SourceEvent =
  | { readonly kind: "begin"; readonly migrationId: string }
  /** The vCPUs stand still. */
  | { readonly kind: "stunned" }
  /** Last pages and device state are on the wire. */
  | { readonly kind: "sent"; readonly digest: string }
  | (StunAnswer & { readonly kind: "prepared"; readonly digest: string })
  /** QEMU says `completed` and `postmigrate`: from here on only a `cont` can start it. */
  | { readonly kind: "postmigrate" }
  | (StunAnswer & { readonly kind: "taken" })
  | (StunAnswer & { readonly kind: "refused" })
  | (StunAnswer & { readonly kind: "complete" })
  /** The witness has put down for good that the dest shall not have the guest of this stun. */
  | { readonly kind: "revoked"; readonly stun: StunRef }
  /** The guest was started here by hand before TOKEN went out, which is not sent any more. */
  | { readonly kind: "withheld" }
  /** A person says whose the guest is, and that the other side cannot run it. */
  | { readonly kind: "settled"; readonly owner: "source" }
  /** `follows`: something of the guest is here that the dest may still lack. */
  | { readonly kind: "settled"; readonly owner: "dest"; readonly follows: boolean }
  /** Anything that ends the attempt: an error, a cancel, a lost link. */
  | { readonly kind: "failed" }
  /** The guest runs here again, or is known to be dead. */
  | { readonly kind: "resumed" };

/** An answer of the dest: which stun it means, and which incarnation says so. */
export interface StunAnswer {
  readonly stun: StunRef;
  readonly incarnation: string;
}

export type SourceAction =
  /** Made durable before the actions that follow it. */
  | (SourceRecord & { readonly do: "record" })
  | { readonly do: "send-token"; readonly stun: StunRef }
  | { readonly do: "send-abort"; readonly stun: StunRef }
  /** Forward SHUT on the return path of the source's QEMU. */
  | { readonly do: "forward-shut" }
  /** Close the migration socket, cancel, and see the guest running. */
  | { readonly do: "roll-back" }
  | { readonly do: "resume-guest" }
  /** It runs although it is not ours: its memory stays, for a person to judge. */
  | { readonly do: "halt-guest" }
  | { readonly do: "quit-guest" };

/**
 * What a restarted agent knows. `incarnation` is that of the dest's journal: whose answer counts.
 * `epoch` is the one that the record gives away, or the source's own: in `kept` the one that it had
 * all the time, in `reclaimed` its next one.
 */
export type SourceRecord = { readonly epoch: number; readonly stun: StunRef } & (
  | { readonly record: "begin" | "kept" | "reclaimed" | "done" }
  | { readonly record: "handed-off"; readonly incarnation: string; readonly digest: string }
  | { readonly record: "released"; readonly incarnation: string }
);

export interface SourceStep {
  readonly state: SourceOwnership;
  readonly actions: readonly SourceAction[];
}

export function nextSourceOwnership(state: SourceOwnership, event: SourceEvent): SourceStep {
  switch (state.phase) {
    case "owner":
      return fromOwner(state, event);
    case "transfer":
      if (event.kind === "stunned") return step({ phase: "stunned", stun: state.stun });
      return beforeHandOver(state, event);
    case "stunned":
      if (event.kind !== "sent") return beforeHandOver(state, event);
      return step({ phase: "awaiting-prepared", stun: state.stun, digest: event.digest });
    case "awaiting-prepared":
      return fromAwaitingPrepared(state, event);
    case "shutting":
      return fromShutting(state, event);
    case "rolling-back":
      return fromRollingBack(state, event);
    case "handed-off":
      return fromHandedOff(state, event);
    case "released":
      return fromReleased(state, event);
    case "reclaimed":
      if (event.kind === "resumed") return step({ phase: "owner", epoch: state.epoch });
      // The dest repeats its refusal until it is heard.
      return event.kind === "refused" || event.kind === "failed"
        ? step(state)
        : refuse(state, event);
    case "done":
      return event.kind === "complete" || event.kind === "taken" || event.kind === "failed"
        ? step(state)
        : refuse(state, event);
    case "unclear":
      return fromUnclear(state, event);
    default:
      return unreachable(state);
  }
}

/** May a failure, a time-out or a cancel still bring the guest back here? */
export function mayRollBack(state: SourceOwnership): boolean {
  switch (state.phase) {
    case "transfer":
    case "stunned":
    case "awaiting-prepared":
    case "shutting":
      return true;
    case "owner":
    case "rolling-back":
    case "handed-off":
    case "released":
    case "reclaimed":
    case "done":
    case "unclear":
      return false;
    default:
      return unreachable(state);
  }
}

function fromOwner(state: SourceOwnership & { phase: "owner" }, event: SourceEvent): SourceStep {
  switch (event.kind) {
    case "begin":
      break;
    // What was under way when the attempt was rolled back or refused. `taken` is none of that.
    case "prepared":
    case "refused":
    case "failed":
      return step(state);
    case "stunned":
    case "sent":
    case "postmigrate":
    case "taken":
    case "complete":
    case "revoked":
    case "withheld":
    case "settled":
    case "resumed":
      return refuse(state, event);
    default:
      return unreachable(event);
  }
  const stun = { migrationId: event.migrationId, epoch: state.epoch + 1, generation: 1 };
  const { epoch } = stun;
  return step({ phase: "transfer", stun }, { do: "record", record: "begin", epoch, stun });
}

function fromAwaitingPrepared(
  state: SourceOwnership & { phase: "awaiting-prepared" },
  event: SourceEvent,
): SourceStep {
  if (event.kind !== "prepared") return beforeHandOver(state, event);
  const { stun, digest } = state;
  if (!sameStun(event.stun, stun) || event.digest !== digest) return rollBack(stun);
  return step(
    { phase: "shutting", stun, digest, incarnation: event.incarnation },
    { do: "forward-shut" },
  );
}

function fromShutting(
  state: SourceOwnership & { phase: "shutting" },
  event: SourceEvent,
): SourceStep {
  if (event.kind === "prepared") return step(state);
  if (event.kind !== "postmigrate") return beforeHandOver(state, event);
  const { stun, digest, incarnation } = state;
  return step(
    { phase: "handed-off", stun, incarnation },
    { do: "record", record: "handed-off", epoch: stun.epoch, stun, incarnation, digest },
    { do: "send-token", stun },
  );
}

/** The part that `transfer`, `stunned`, `awaiting-prepared` and `shutting` share. */
function beforeHandOver(
  state: SourceOwnership & { readonly stun: StunRef },
  event: SourceEvent,
): SourceStep {
  return event.kind === "failed" || event.kind === "refused"
    ? rollBack(state.stun)
    : refuse(state, event);
}

function fromRollingBack(
  state: SourceOwnership & { phase: "rolling-back" },
  event: SourceEvent,
): SourceStep {
  switch (event.kind) {
    case "resumed": {
      const { stun } = state;
      const epoch = stun.epoch - 1;
      return step({ phase: "owner", epoch }, { do: "record", record: "kept", epoch, stun });
    }
    // What was under way when the roll-back began.
    case "failed":
    case "refused":
    case "prepared":
    case "stunned":
    case "sent":
    case "postmigrate":
      return step(state);
    case "begin":
    case "taken":
    case "complete":
    case "revoked":
    case "withheld":
    case "settled":
      return refuse(state, event);
    default:
      return unreachable(event);
  }
}

function fromHandedOff(
  state: SourceOwnership & { phase: "handed-off" },
  event: SourceEvent,
): SourceStep {
  const { stun } = state;
  switch (event.kind) {
    case "taken":
      return believed(state, event) ? release(state) : step(state);
    case "refused":
      return believed(state, event) ? reclaim(stun) : step(state);
    case "revoked":
      return sameStun(event.stun, stun) ? reclaim(stun) : step(state);
    case "withheld":
      return reclaim(stun, { do: "send-abort", stun });
    case "settled":
      if (event.owner === "source") return reclaim(stun);
      // It has been asked, and is again whenever the link was lost.
      return event.follows ? release(state) : letGo(stun);
    case "failed":
      // The link or a time-out. Waiting loses nothing, so the source waits and asks again.
      return step(state, { do: "send-token", stun });
    case "prepared":
    // TAKEN was lost with a link and this came over the next one: the token there brings both again.
    case "complete":
      return step(state);
    case "begin":
    case "stunned":
    case "sent":
    case "postmigrate":
    case "resumed":
      return refuse(state, event);
    default:
      return unreachable(event);
  }
}

function fromReleased(
  state: SourceOwnership & { phase: "released" },
  event: SourceEvent,
): SourceStep {
  const { stun } = state;
  switch (event.kind) {
    case "complete":
      return believed(state, event) ? letGo(stun) : step(state);
    case "settled":
      // The dest has said that it took the guest: what is here is old. What it may lack is not.
      return event.owner === "dest" && !event.follows ? letGo(stun) : refuse(state, event);
    case "failed":
      // COMPLETE may have been lost with the link; a dest that owns the guest repeats it.
      return step(state, { do: "send-token", stun });
    case "taken":
    case "prepared":
      return step(state);
    case "refused":
      // A dest whose `cont` failed and that never ran gives the guest back.
      return believed(state, event) ? reclaim(stun) : step(state);
    case "begin":
    case "stunned":
    case "sent":
    case "postmigrate":
    case "revoked":
    case "withheld":
    case "resumed":
      return refuse(state, event);
    default:
      return unreachable(event);
  }
}

function fromUnclear(state: Unclear, event: SourceEvent): SourceStep {
  switch (event.kind) {
    case "settled":
      return settleUnclear(state, event);
    // What the dest goes on saying, and the link that carries it.
    case "prepared":
    case "taken":
    case "refused":
    case "complete":
    case "failed":
      return step(state);
    case "begin":
    case "stunned":
    case "sent":
    case "postmigrate":
    case "revoked":
    case "withheld":
    case "resumed":
      return refuse(state, event);
    default:
      return unreachable(event);
  }
}

function settleUnclear(state: Unclear, event: SourceEvent & { kind: "settled" }): SourceStep {
  const { stun, incarnation } = state;
  if (stun === null) return refuse(state, event);
  if (event.owner === "source") return reclaim(stun);
  if (incarnation === null || !event.follows) return letGo(stun);
  return release({ stun, incarnation }, { do: "send-token", stun });
}

/** Only the incarnation that prepared knows whether it took the guest. */
function believed(
  state: { readonly stun: StunRef; readonly incarnation: string },
  answer: StunAnswer,
): boolean {
  return sameStun(answer.stun, state.stun) && answer.incarnation === state.incarnation;
}

/** Brings the guest back; `recoverSource` does the same with what an earlier life had begun. */
export function rollBack(stun: StunRef): SourceStep {
  return step({ phase: "rolling-back", stun }, { do: "send-abort", stun }, { do: "roll-back" });
}

/** The guest is the dest's; what follows it is kept until the dest has all of it. */
function release(
  { stun, incarnation }: { readonly stun: StunRef; readonly incarnation: string },
  ...more: SourceAction[]
): SourceStep {
  return step(
    { phase: "released", stun, incarnation },
    { do: "record", record: "released", epoch: stun.epoch, stun, incarnation },
    ...more,
  );
}

/** The refused epoch is burnt: the source goes on in the one after it. */
function reclaim(stun: StunRef, ...more: SourceAction[]): SourceStep {
  const epoch = stun.epoch + 1;
  return step(
    { phase: "reclaimed", epoch },
    { do: "record", record: "reclaimed", epoch, stun },
    ...more,
    { do: "resume-guest" },
  );
}

/** The guest is the dest's, and nothing of it is needed here any more. */
function letGo(stun: StunRef): SourceStep {
  const { epoch } = stun;
  return step(
    { phase: "done", epoch },
    { do: "record", record: "done", epoch, stun },
    { do: "quit-guest" },
  );
}

function step(state: SourceOwnership, ...actions: SourceAction[]): SourceStep {
  return { state, actions };
}

function refuse(state: SourceOwnership, event: SourceEvent): never {
  return illegalEvent("source", state.phase, event.kind);
}
