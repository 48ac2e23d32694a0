import { describe, expect, test } from "vitest";
import {
  nextDestOwnership,
  type DestAction,
  type DestEvent,
  type DestOwnership,
} from "./dest-ownership.ts";
import { OwnershipError } from "./ownership-error.ts";
import type { StunRef } from "./stun-ref.ts";

/* The whole table: every phase with every event, a message of the source also with each part of its
 * stun wrong. The stun at issue is the first of migration m1, and makes this dest own epoch 8. */

const stun: StunRef = { migrationId: "m1", epoch: 8, generation: 1 };
const otherMigration: StunRef = { ...stun, migrationId: "m2" };
const otherEpoch: StunRef = { ...stun, epoch: 9 };
const otherGeneration: StunRef = { ...stun, generation: 2 };

const events = {
  offer: { kind: "offer", stun },
  loaded: { kind: "loaded", digest: "A" },
  "loaded, other digest": { kind: "loaded", digest: "B" },
  stunned: { kind: "stunned", stun, digest: "A" },
  "stunned, other digest": { kind: "stunned", stun, digest: "B" },
  "stunned, other migration": { kind: "stunned", stun: otherMigration, digest: "A" },
  "stunned, other epoch": { kind: "stunned", stun: otherEpoch, digest: "A" },
  "stunned, other generation": { kind: "stunned", stun: otherGeneration, digest: "A" },
  token: { kind: "token", stun },
  "token, other migration": { kind: "token", stun: otherMigration },
  "token, other epoch": { kind: "token", stun: otherEpoch },
  "token, other generation": { kind: "token", stun: otherGeneration },
  abort: { kind: "abort", stun },
  "abort, other migration": { kind: "abort", stun: otherMigration },
  "abort, other epoch": { kind: "abort", stun: otherEpoch },
  "abort, other generation": { kind: "abort", stun: otherGeneration },
  running: { kind: "running" },
  whole: { kind: "whole" },
  "cont-failed": { kind: "cont-failed" },
  died: { kind: "died" },
  "settled for the source": { kind: "settled", owner: "source" },
  "settled for the dest": { kind: "settled", owner: "dest" },
  failed: { kind: "failed", code: "peer-lost" },
} as const satisfies Record<string, DestEvent>;

type EventName = keyof typeof events;

/** "nothing" = the same state, and nothing to do. What is not listed is illegal. */
interface Row {
  readonly state: DestOwnership;
  readonly cells: Partial<Record<EventName, string>>;
}

const refusal = (code: string): string =>
  `→ refused: record refused ${code}, kill-guest, send-refused ${code}`;
const preparing = "→ prepared digest A: record prepared A, send-prepared A";
const running = "→ fetching: send-taken, send-running, fetch";
const owning = "→ owner: send-taken, send-running, record complete, send-complete";

/** What every phase before `taken` does with the end of the attempt. */
const givingUp = {
  ...each("abort", "nothing"),
  abort: refusal("cancelled"),
  failed: refusal("peer-lost"),
  died: refusal("dest-qemu-died"),
};

const table: { readonly [P in DestOwnership["phase"]]: Row & { state: { phase: P } } } = {
  none: {
    state: { phase: "none" },
    cells: { offer: "→ loading: record reserved" },
  },
  loading: {
    state: { phase: "loading", stun },
    cells: {
      loaded: "→ loaded digest A",
      "loaded, other digest": "→ loaded digest B",
      ...each("stunned", refusal("protocol-violation")),
      stunned: "→ expecting digest A",
      "stunned, other digest": "→ expecting digest B",
      ...givingUp,
    },
  },
  loaded: {
    state: { phase: "loaded", stun, digest: "A" },
    cells: {
      ...each("stunned", refusal("protocol-violation")),
      stunned: preparing,
      "stunned, other digest": refusal("digest-mismatch"),
      ...givingUp,
    },
  },
  expecting: {
    state: { phase: "expecting", stun, digest: "A" },
    cells: {
      loaded: preparing,
      "loaded, other digest": refusal("digest-mismatch"),
      ...givingUp,
    },
  },
  prepared: {
    state: { phase: "prepared", stun, digest: "A" },
    cells: {
      ...each("stunned", "same: send-prepared A"),
      ...each("token", "nothing"),
      token: "→ taken: record taken, start-guest",
      "settled for the dest": "→ taken: record taken, start-guest",
      "settled for the source": refusal("cancelled"),
      ...givingUp,
    },
  },
  taken: {
    state: { phase: "taken", stun },
    cells: {
      ...each("token", "nothing"),
      running,
      "cont-failed": refusal("dest-qemu-failed"),
      died: "→ down: send-taken",
      failed: "nothing",
    },
  },
  restarting: {
    state: { phase: "restarting", stun },
    cells: {
      ...each("token", "nothing"),
      running,
      "cont-failed": "→ down: send-taken",
      died: "→ down: send-taken",
      failed: "nothing",
    },
  },
  fetching: {
    state: { phase: "fetching", stun },
    cells: {
      ...each("token", "nothing"),
      token: "same: send-taken, send-running",
      whole: "→ owner: record complete, send-complete",
      running: "nothing",
      died: "→ down: send-taken",
      failed: "nothing",
    },
  },
  down: {
    state: { phase: "down", stun },
    cells: {
      whole: "nothing",
      ...each("token", "nothing"),
      token: "same: send-taken",
      running,
      "settled for the dest": owning,
      "cont-failed": "nothing",
      died: "nothing",
      failed: "nothing",
    },
  },
  owner: {
    state: { phase: "owner", stun },
    cells: {
      ...each("token", "nothing"),
      token: "same: send-taken, send-running, send-complete",
      died: "nothing",
      failed: "nothing",
    },
  },
  refused: {
    state: { phase: "refused", stun },
    cells: {
      ...each("loaded", "nothing"),
      ...each("stunned", "same: send-refused peer-refused"),
      ...each("token", "same: send-refused peer-refused"),
      ...each("abort", "nothing"),
      died: "nothing",
      failed: "nothing",
    },
  },
  unclear: {
    state: { phase: "unclear", stun },
    cells: {
      "settled for the dest": "→ restarting: record taken, start-guest",
      "settled for the source": refusal("cancelled"),
      ...each("stunned", "nothing"),
      ...each("token", "nothing"),
      ...each("abort", "nothing"),
      died: "nothing",
      failed: "nothing",
    },
  },
};

/** The cell for an event and for each of the same kind with a part that is wrong. */
function each(kind: string, cell: string): Partial<Record<EventName, string>> {
  const names = Object.keys(events).filter((name) => name.split(",")[0] === kind);
  return Object.fromEntries(names.map((name) => [name, cell]));
}

function describeState(state: DestOwnership): string {
  if ("stun" in state) expect(state.stun).toEqual(stun);
  return "digest" in state ? `${state.phase} digest ${state.digest}` : state.phase;
}

function describeAction(action: DestAction): string {
  if ("stun" in action) expect(action.stun).toEqual(stun);
  const name = action.do === "record" ? `record ${action.record}` : action.do;
  if ("digest" in action) return `${name} ${action.digest}`;
  return "code" in action ? `${name} ${action.code}` : name;
}

function cellOf(state: DestOwnership, event: DestEvent): string {
  let step;
  try {
    step = nextDestOwnership(state, event);
  } catch (error) {
    if (!(error instanceof OwnershipError)) throw error;
    expect(error.detail).toEqual({
      code: "ownership-illegal-event",
      role: "dest",
      phase: state.phase,
      event: event.kind,
    });
    return "illegal";
  }
  const actions = step.actions.map(describeAction).join(", ");
  if (step.state === state) return actions === "" ? "nothing" : `same: ${actions}`;
  return `→ ${describeState(step.state)}${actions === "" ? "" : `: ${actions}`}`;
}

describe("what the dest does with every event", () => {
  test.each(Object.values(table))("$state.phase", ({ state, cells }) => {
    const names = Object.keys(events) as EventName[];
    const actual = Object.fromEntries(names.map((name) => [name, cellOf(state, events[name])]));
    const expected = Object.fromEntries(names.map((name) => [name, cells[name] ?? "illegal"]));
    expect(actual).toEqual(expected);
  });

  test("the table has every kind of event", () => {
    const kinds: Record<DestEvent["kind"], true> = {
      offer: true,
      loaded: true,
      stunned: true,
      token: true,
      abort: true,
      running: true,
      whole: true,
      "cont-failed": true,
      died: true,
      settled: true,
      failed: true,
    };
    const tried = new Set(Object.values(events).map(({ kind }) => kind));
    expect([...tried].sort()).toEqual(Object.keys(kinds).sort());
  });
});

test("a step that starts the guest or speaks of a promise has recorded it first", () => {
  const promises = ["send-prepared", "send-taken", "send-refused", "start-guest", "send-complete"];
  for (const { state } of Object.values(table)) {
    for (const event of Object.values(events)) {
      if (cellOf(state, event) === "illegal") continue;
      const { state: after, actions } = nextDestOwnership(state, event);
      if (after === state || !actions.some((action) => promises.includes(action.do))) continue;
      // What an earlier step has recorded.
      if (after.phase === "down" || after.phase === "fetching") continue;
      const first = after.phase === "owner" ? actions.at(-2) : actions[0];
      expect(first?.do, `${state.phase} + ${event.kind}`).toBe("record");
    }
  }
});
