import { describe, expect, test } from "vitest";
import { OwnershipError } from "./ownership-error.ts";
import {
  mayRollBack,
  nextSourceOwnership,
  type SourceAction,
  type SourceEvent,
  type SourceOwnership,
} from "./source-ownership.ts";
import type { StunRef } from "./stun-ref.ts";

/* The whole table: every phase with every event, an answer of the dest also with each of its parts
 * wrong. The source owns the guest in epoch 7; the stun at issue is the first of migration m1, and
 * would make the dest own epoch 8. The dest that prepared is d1. */

const stun: StunRef = { migrationId: "m1", epoch: 8, generation: 1 };
const ours = { stun, incarnation: "d1" };
const otherMigration = { stun: { ...stun, migrationId: "m2" }, incarnation: "d1" };
const otherEpoch = { stun: { ...stun, epoch: 9 }, incarnation: "d1" };
const otherGeneration = { stun: { ...stun, generation: 2 }, incarnation: "d1" };
const otherDest = { stun, incarnation: "d2" };

const events = {
  begin: { kind: "begin", migrationId: "m1" },
  stunned: { kind: "stunned" },
  sent: { kind: "sent", digest: "A" },
  prepared: { kind: "prepared", ...ours, digest: "A" },
  "prepared, other migration": { kind: "prepared", ...otherMigration, digest: "A" },
  "prepared, other epoch": { kind: "prepared", ...otherEpoch, digest: "A" },
  "prepared, other generation": { kind: "prepared", ...otherGeneration, digest: "A" },
  "prepared, other digest": { kind: "prepared", ...ours, digest: "B" },
  "prepared, other dest": { kind: "prepared", ...otherDest, digest: "A" },
  postmigrate: { kind: "postmigrate" },
  taken: { kind: "taken", ...ours },
  "taken, other migration": { kind: "taken", ...otherMigration },
  "taken, other epoch": { kind: "taken", ...otherEpoch },
  "taken, other generation": { kind: "taken", ...otherGeneration },
  "taken, other dest": { kind: "taken", ...otherDest },
  refused: { kind: "refused", ...ours },
  "refused, other migration": { kind: "refused", ...otherMigration },
  "refused, other epoch": { kind: "refused", ...otherEpoch },
  "refused, other generation": { kind: "refused", ...otherGeneration },
  "refused, other dest": { kind: "refused", ...otherDest },
  complete: { kind: "complete", ...ours },
  "complete, other migration": { kind: "complete", ...otherMigration },
  "complete, other epoch": { kind: "complete", ...otherEpoch },
  "complete, other generation": { kind: "complete", ...otherGeneration },
  "complete, other dest": { kind: "complete", ...otherDest },
  revoked: { kind: "revoked", stun },
  "revoked, other migration": { kind: "revoked", stun: otherMigration.stun },
  "revoked, other epoch": { kind: "revoked", stun: otherEpoch.stun },
  "revoked, other generation": { kind: "revoked", stun: otherGeneration.stun },
  "settled for the source": { kind: "settled", owner: "source" },
  "settled for the dest": { kind: "settled", owner: "dest", follows: false },
  "settled for the dest, which lacks something": { kind: "settled", owner: "dest", follows: true },
  withheld: { kind: "withheld" },
  failed: { kind: "failed" },
  resumed: { kind: "resumed" },
} as const satisfies Record<string, SourceEvent>;

type EventName = keyof typeof events;

/** "nothing" = the same state, and nothing to do. What is not listed is illegal. */
interface Row {
  readonly state: SourceOwnership;
  readonly mayRollBack: boolean;
  readonly cells: Partial<Record<EventName, string>>;
}

const rollBack = "→ rolling-back to 7: send-abort, roll-back";

const reclaiming = "→ reclaimed for 9: record reclaimed 9, resume-guest";
const releasing = "→ released m1/8/1 with d1: record released 8 with d1";
const lettingGo = "→ done with 8: record done 8, quit-guest";

const table: { readonly [P in SourceOwnership["phase"]]: Row & { state: { phase: P } } } = {
  owner: {
    state: { phase: "owner", epoch: 7 },
    mayRollBack: false,
    cells: {
      begin: "→ transfer m1/8/1: record begin 8",
      ...each("prepared", "nothing"),
      ...each("refused", "nothing"),
      failed: "nothing",
    },
  },
  transfer: {
    state: { phase: "transfer", stun },
    mayRollBack: true,
    cells: {
      stunned: "→ stunned m1/8/1",
      failed: rollBack,
      ...each("refused", rollBack),
    },
  },
  stunned: {
    state: { phase: "stunned", stun },
    mayRollBack: true,
    cells: {
      sent: "→ awaiting-prepared m1/8/1 digest A",
      failed: rollBack,
      ...each("refused", rollBack),
    },
  },
  "awaiting-prepared": {
    state: { phase: "awaiting-prepared", stun, digest: "A" },
    mayRollBack: true,
    cells: {
      ...each("prepared", rollBack),
      prepared: "→ shutting m1/8/1 digest A with d1: forward-shut",
      "prepared, other dest": "→ shutting m1/8/1 digest A with d2: forward-shut",
      failed: rollBack,
      ...each("refused", rollBack),
    },
  },
  shutting: {
    state: { phase: "shutting", ...ours, digest: "A" },
    mayRollBack: true,
    cells: {
      ...each("prepared", "nothing"),
      postmigrate: "→ handed-off m1/8/1 with d1: record handed-off 8 digest A with d1, send-token",
      failed: rollBack,
      ...each("refused", rollBack),
    },
  },
  "rolling-back": {
    state: { phase: "rolling-back", stun },
    mayRollBack: false,
    cells: {
      stunned: "nothing",
      sent: "nothing",
      ...each("prepared", "nothing"),
      postmigrate: "nothing",
      ...each("refused", "nothing"),
      failed: "nothing",
      resumed: "→ owner of 7: record kept 7",
    },
  },
  "handed-off": {
    state: { phase: "handed-off", ...ours },
    mayRollBack: false,
    cells: {
      ...each("prepared", "nothing"),
      ...each("taken", "nothing"),
      taken: releasing,
      ...each("refused", "nothing"),
      refused: reclaiming,
      ...each("complete", "nothing"),
      ...each("revoked", "nothing"),
      revoked: reclaiming,
      withheld: "→ reclaimed for 9: record reclaimed 9, send-abort, resume-guest",
      "settled for the source": reclaiming,
      "settled for the dest": lettingGo,
      "settled for the dest, which lacks something": releasing,
      failed: "same: send-token",
    },
  },
  released: {
    state: { phase: "released", ...ours },
    mayRollBack: false,
    cells: {
      ...each("prepared", "nothing"),
      ...each("taken", "nothing"),
      ...each("refused", "nothing"),
      refused: reclaiming,
      ...each("complete", "nothing"),
      complete: lettingGo,
      "settled for the dest": lettingGo,
      failed: "same: send-token",
    },
  },
  reclaimed: {
    state: { phase: "reclaimed", epoch: 9 },
    mayRollBack: false,
    cells: {
      ...each("refused", "nothing"),
      failed: "nothing",
      resumed: "→ owner of 9",
    },
  },
  done: {
    state: { phase: "done", epoch: 8 },
    mayRollBack: false,
    cells: {
      ...each("taken", "nothing"),
      ...each("complete", "nothing"),
      failed: "nothing",
    },
  },
  unclear: {
    state: { phase: "unclear", ...ours },
    mayRollBack: false,
    cells: {
      "settled for the source": reclaiming,
      "settled for the dest": lettingGo,
      "settled for the dest, which lacks something": `${releasing}, send-token`,
      ...each("prepared", "nothing"),
      ...each("taken", "nothing"),
      ...each("refused", "nothing"),
      ...each("complete", "nothing"),
      failed: "nothing",
    },
  },
};

/** The cell for an answer of the dest and for each of the same answer with a part that is wrong. */
function each(kind: string, cell: string): Partial<Record<EventName, string>> {
  const names = Object.keys(events).filter((name) => name.split(",")[0] === kind);
  return Object.fromEntries(names.map((name) => [name, cell]));
}

function describeState(state: SourceOwnership): string {
  switch (state.phase) {
    case "owner":
      return `owner of ${state.epoch}`;
    case "rolling-back":
      return `rolling-back to ${state.stun.epoch - 1}`;
    case "reclaimed":
      return `reclaimed for ${state.epoch}`;
    case "done":
      return `done with ${state.epoch}`;
    case "transfer":
    case "stunned":
      return `${state.phase} ${describeStun(state.stun)}`;
    case "awaiting-prepared":
      return `${state.phase} ${describeStun(state.stun)} digest ${state.digest}`;
    case "shutting":
      return `shutting ${describeStun(state.stun)} digest ${state.digest} with ${state.incarnation}`;
    case "unclear":
      return state.phase;
    case "handed-off":
    case "released":
      return `${state.phase} ${describeStun(state.stun)} with ${state.incarnation}`;
  }
}

function describeStun({ migrationId, epoch, generation }: StunRef): string {
  return `${migrationId}/${epoch}/${generation}`;
}

function describeAction(action: SourceAction): string {
  if ("stun" in action) expect(action.stun).toEqual(stun);
  if (action.do !== "record") return action.do;
  const digest = "digest" in action ? ` digest ${action.digest}` : "";
  const incarnation = "incarnation" in action ? ` with ${action.incarnation}` : "";
  return `record ${action.record} ${action.epoch}${digest}${incarnation}`;
}

function cellOf(state: SourceOwnership, event: SourceEvent): string {
  let step;
  try {
    step = nextSourceOwnership(state, event);
  } catch (error) {
    if (!(error instanceof OwnershipError)) throw error;
    expect(error.detail).toEqual({
      code: "ownership-illegal-event",
      role: "source",
      phase: state.phase,
      event: event.kind,
    });
    return "illegal";
  }
  const actions = step.actions.map(describeAction).join(", ");
  if (step.state === state) return actions === "" ? "nothing" : `same: ${actions}`;
  return `→ ${describeState(step.state)}${actions === "" ? "" : `: ${actions}`}`;
}

describe("what the source does with every event", () => {
  test.each(Object.values(table))("$state.phase", ({ state, cells }) => {
    const names = Object.keys(events) as EventName[];
    const actual = Object.fromEntries(names.map((name) => [name, cellOf(state, events[name])]));
    const expected = Object.fromEntries(names.map((name) => [name, cells[name] ?? "illegal"]));
    expect(actual).toEqual(expected);
  });

  test("the table has every kind of event", () => {
    const kinds: Record<SourceEvent["kind"], true> = {
      begin: true,
      stunned: true,
      sent: true,
      prepared: true,
      postmigrate: true,
      taken: true,
      refused: true,
      complete: true,
      revoked: true,
      withheld: true,
      settled: true,
      failed: true,
      resumed: true,
    };
    const tried = new Set(Object.values(events).map(({ kind }) => kind));
    expect([...tried].sort()).toEqual(Object.keys(kinds).sort());
  });
});

test.each(Object.values(table))("rolling back from $state.phase: $mayRollBack", (row) => {
  expect(mayRollBack(row.state)).toBe(row.mayRollBack);
  // The table and the function say the same.
  expect(row.cells.failed === rollBack).toBe(row.mayRollBack);
});

test("a guest that comes back from a refusal goes on in an epoch that nobody else was promised", () => {
  const handedOff: SourceOwnership = { phase: "handed-off", ...ours };
  const reclaimed = nextSourceOwnership(handedOff, { kind: "refused", ...ours }).state;
  const owner = nextSourceOwnership(reclaimed, { kind: "resumed" }).state;
  const again = nextSourceOwnership(owner, { kind: "begin", migrationId: "m2" }).state;
  expect(again).toEqual({
    phase: "transfer",
    stun: { migrationId: "m2", epoch: 10, generation: 1 },
  });
});

test("a person cannot settle what no record tells of: nothing could be recorded", () => {
  const lost: SourceOwnership = { phase: "unclear", stun: null, incarnation: null };
  for (const name of ["settled for the source", "settled for the dest"] as const) {
    expect(cellOf(lost, events[name])).toBe("illegal");
  }
});

test("a dest that never had a token lacks nothing, whatever is left here", () => {
  const begun: SourceOwnership = { phase: "unclear", stun, incarnation: null };
  expect(cellOf(begun, events["settled for the dest, which lacks something"])).toBe(lettingGo);
});
