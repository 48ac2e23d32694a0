/**
 * Bugs that others have had, or that are easy to make: each spoils one of the production functions or
 * one rule around them, and the search has to find what comes of it.
 */
import { nextDestOwnership } from "../dest-ownership.ts";
import { recoverDest } from "../recover-dest.ts";
import { recoverSource } from "../recover-source.ts";
import {
  nextSourceOwnership,
  type SourceEvent,
  type SourceOwnership,
  type SourceStep,
} from "../source-ownership.ts";
import type { Rules, Variant } from "./rules.ts";

export interface PlantedBug {
  readonly bug: string;
  /** The first promise that it breaks; others follow. */
  readonly breaks: string;
  readonly variant: Variant;
}

const crashes = { sourceCrashes: 1, destCrashes: 1 };

export const plantedBugs: readonly PlantedBug[] = [
  {
    bug: "M1: a source that resumes on a time-out after the hand-over",
    breaks: "I4: both journals claim the guest",
    variant: {
      nextSource: (state, event) =>
        state.phase === "handed-off" && event.kind === "failed"
          ? nextSourceOwnership(state, { ...state, kind: "refused" })
          : nextSourceOwnership(state, event),
    },
  },
  {
    bug: "M1 after a restart: a source that rolls back what it had handed over",
    breaks: "I1: both sides execute the guest",
    variant: {
      budgets: crashes,
      recoverSource: (found) =>
        found.last?.record === "handed-off"
          ? recoverSource({ ...found, last: { ...found.last, record: "begin" } })
          : recoverSource(found),
    },
  },
  {
    bug: "M2: a dest QEMU that starts by itself",
    breaks: "I2: the source owns without the last write",
    variant: { destAutostarts: true },
  },
  {
    bug: "M3: a token before its record is durable",
    breaks: "I4: both journals claim the guest",
    variant: {
      budgets: crashes,
      nextSource: (state, event) => lastFirst(nextSourceOwnership(state, event), "handed-off"),
    },
  },
  {
    bug: "M4: a dest that starts the guest before its record is durable, and restarts without looking",
    breaks: "I5: memory is lost although no QEMU that held it died",
    variant: {
      budgets: crashes,
      nextDest: (state, event) => lastFirst(nextDestOwnership(state, event), "taken"),
      recoverDest: ({ last, qemu }) =>
        recoverDest({ last, qemu: qemu === "running" ? "paused" : qemu }),
    },
  },
  {
    bug: "M5: a pair that compares neither stun nor digest, so that an old PREPARED counts",
    breaks: "I2: the dest owns without the last write",
    variant: { attemptsMax: 2, ...withoutChecks() },
  },
  {
    bug: "M7: a source that believes a dest which has lost its journal",
    breaks: "I2: the source owns without the last write",
    variant: {
      budgets: { destCrashes: 1, destForgets: 1 },
      nextSource: (state, event) =>
        "incarnation" in event && "incarnation" in state && state.incarnation !== null
          ? nextSourceOwnership(state, { ...event, incarnation: state.incarnation })
          : nextSourceOwnership(state, event),
    },
  },
  {
    bug: "M8: a witness that is read first and written then",
    breaks: "I4: both journals claim the guest",
    variant: { witness: "read-then-write" },
  },
  {
    bug: "M9: a source that ends its QEMU when it hands over",
    breaks: "I5: memory is lost although no QEMU that held it died",
    variant: {
      nextSource: endingQemuEarly,
    },
  },
  {
    bug: "a source that hands over before its QEMU has said postmigrate",
    breaks: "a restart found what the protocol cannot leave",
    variant: {
      budgets: crashes,
      nextSource: notWaitingForPostmigrate,
      recoverSource: ({ last, qemu, epoch }) =>
        recoverSource({ last, epoch, qemu: qemu === "finish-migrate" ? "postmigrate" : qemu }),
    },
  },
  {
    bug: "a dest that says REFUSED before its record is durable",
    breaks: "I4: both journals claim the guest",
    variant: {
      budgets: crashes,
      nextDest: (state, event) => lastFirst(nextDestOwnership(state, event), "refused"),
    },
  },
  {
    bug: "a dest that acts on the token of another attempt",
    breaks: "I4: both journals claim the guest",
    variant: {
      attemptsMax: 2,
      nextDest: (state, event) =>
        state.phase === "prepared" && event.kind === "token"
          ? nextDestOwnership(state, { ...event, stun: state.stun })
          : nextDestOwnership(state, event),
    },
  },
  {
    bug: "a dest that refuses what it had taken because its QEMU is gone after a restart",
    breaks: "I2: the source owns without the last write",
    variant: {
      budgets: { ...crashes, destKills: 1 },
      recoverDest: (found) =>
        found.last?.record === "taken" && found.qemu === "gone"
          ? recoverDest({ last: { ...found.last, record: "reserved" }, qemu: "gone" })
          : recoverDest(found),
    },
  },
  {
    bug: "a dest that takes an offer once more that its journal knows",
    breaks: "I4: both journals claim the guest",
    variant: { budgets: crashes, destKnowsOffers: false, attemptsMax: 2 },
  },
  {
    bug: "a source whose journal is lost and that starts a guest which stands at postmigrate",
    breaks: "I1: both sides execute the guest",
    variant: {
      budgets: { sourceCrashes: 1, sourceForgets: 1 },
      recoverSource: (found) =>
        found.last === null && found.qemu === "postmigrate"
          ? { state: { phase: "reclaimed", epoch: found.epoch }, actions: [{ do: "resume-guest" }] }
          : recoverSource(found),
    },
  },
  {
    bug: "a pair that does not compare what was sent with what was loaded",
    breaks: "I2: the dest owns without the last write",
    variant: { budgets: { damages: 1 }, ...withoutDigests() },
  },
  {
    bug: "a source that lets go by a person's word although something of the guest follows it",
    breaks: "I7: the source let go of the guest before the dest had all of it",
    variant: {
      budgets: { sourceWords: 1 },
      nextSource: (state, event) =>
        event.kind === "settled" && event.owner === "dest"
          ? nextSourceOwnership(state, { ...event, follows: false })
          : nextSourceOwnership(state, event),
    },
  },
];

function endingQemuEarly(state: SourceOwnership, event: SourceEvent): SourceStep {
  const step = nextSourceOwnership(state, event);
  const handsOver = step.state.phase === "handed-off" && state.phase === "shutting";
  return handsOver ? { ...step, actions: [...step.actions, { do: "quit-guest" }] } : step;
}

function notWaitingForPostmigrate(state: SourceOwnership, event: SourceEvent): SourceStep {
  const step = nextSourceOwnership(state, event);
  if (step.state.phase !== "shutting" || state.phase === "shutting") return step;
  const next = nextSourceOwnership(step.state, { kind: "postmigrate" });
  return { state: next.state, actions: [...step.actions, ...next.actions] };
}

function withoutDigests(): Pick<Rules, "nextSource" | "nextDest"> {
  return {
    nextSource: (state, event) =>
      nextSourceOwnership(state, "digest" in event ? { ...event, digest: "any" } : event),
    nextDest: (state, event) =>
      nextDestOwnership(state, "digest" in event ? { ...event, digest: "any" } : event),
  };
}

function withoutChecks(): Pick<Rules, "nextSource" | "nextDest"> {
  const { nextSource, nextDest } = withoutDigests();
  return {
    nextSource: (state, event) =>
      state.phase === "awaiting-prepared" && event.kind === "prepared"
        ? nextSource(state, { ...event, stun: state.stun })
        : nextSource(state, event),
    nextDest: (state, event) =>
      state.phase === "prepared" && event.kind === "token"
        ? nextDest(state, { ...event, stun: state.stun })
        : nextDest(state, event),
  };
}

/** The same actions, but what the record is for comes before it. */
function lastFirst<S extends { readonly actions: readonly object[] }>(step: S, record: string): S {
  const isRecord = (action: object): boolean =>
    "record" in action && (action as { readonly record: string }).record === record;
  if (!step.actions.some(isRecord)) return step;
  return { ...step, actions: step.actions.toReversed() };
}
