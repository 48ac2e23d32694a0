import { describe, expect, test } from "vitest";
import { nextDestOwnership, type DestAction, type DestRecord } from "./dest-ownership.ts";
import { recoverDest } from "./recover-dest.ts";
import { recoverSource } from "./recover-source.ts";
import type { SeenQemu } from "./seen-qemu.ts";
import {
  nextSourceOwnership,
  type SourceAction,
  type SourceOwnership,
  type SourceRecord,
} from "./source-ownership.ts";
import type { StunRef } from "./stun-ref.ts";

/* Every record with everything that a restarted agent may see of QEMU. The source owned the guest in
 * epoch 7; the stun would make the dest, d1, own epoch 8. */

const stun: StunRef = { migrationId: "m1", epoch: 8, generation: 1 };

/** In each row: gone, running, halted, paused, inmigrate, finish-migrate, postmigrate. */
const SEEN: readonly SeenQemu[] = [
  "gone",
  "running",
  "halted",
  "paused",
  "inmigrate",
  "finish-migrate",
  "postmigrate",
];

const kept = "owner of 7";
const back = "rolling-back to 7: send-abort, roll-back";

const sourceRows: Readonly<
  Record<string, { readonly last: SourceRecord | null; readonly cells: readonly string[] }>
> = {
  // A QEMU that stands still for a migration which the journal does not know: the journal is not
  // the one that began it.
  "no record": {
    last: null,
    cells: [kept, kept, kept, kept, "unclear", "unclear", "unclear"],
  },
  // The source keeps the guest, however QEMU stands: no token was ever sent.
  begin: {
    last: { record: "begin", epoch: 8, stun },
    cells: ["owner of 7: send-abort", back, back, back, "unclear", back, back],
  },
  // Rolled back, and seen running again.
  kept: {
    last: { record: "kept", epoch: 7, stun },
    cells: [kept, kept, kept, kept, "unclear", "unclear", "unclear"],
  },
  // The dest may have it. A source QEMU that does anything but wait was started by somebody.
  "handed-off": {
    last: { record: "handed-off", epoch: 8, stun, incarnation: "d1", digest: "A" },
    cells: [
      "handed-off m1/8/1 with d1: send-token",
      ...["unclear: halt-guest", "unclear", "unclear", "unclear", "unclear"],
      "handed-off m1/8/1 with d1: send-token",
    ],
  },
  released: {
    last: { record: "released", epoch: 8, stun, incarnation: "d1" },
    cells: [
      "released m1/8/1 with d1: send-token",
      ...["unclear: halt-guest", "unclear", "unclear", "unclear", "unclear"],
      "released m1/8/1 with d1: send-token",
    ],
  },
  // The dest has refused: the guest is the source's in the epoch after the refused one.
  reclaimed: {
    last: { record: "reclaimed", epoch: 9, stun },
    cells: [
      ...["owner of 9", "owner of 9", "owner of 9", "owner of 9", "unclear", "unclear"],
      "reclaimed for 9: resume-guest",
    ],
  },
  done: {
    last: { record: "done", epoch: 8, stun },
    cells: [
      "done with 8",
      ...["unclear: halt-guest", "unclear", "unclear", "unclear", "unclear"],
      "done with 8: quit-guest",
    ],
  },
};

function refused(recorded: string): string {
  return `refused: record refused ${recorded}, kill-guest, send-refused ${recorded}`;
}

const mine = "fetching: send-taken, send-running, fetch";
const still = "owner: send-taken, send-running, send-complete";
const again = "refused: kill-guest, send-refused peer-lost";

const destRows: Readonly<
  Record<string, { readonly last: DestRecord | null; readonly cells: readonly string[] }>
> = {
  // One that stands still may hold what a lost journal had promised.
  "no record": {
    last: null,
    cells: ["none", ...["unclear", "unclear", "unclear", "none: kill-guest", "unclear", "unclear"]],
  },
  // Nothing was promised: the source resumes.
  reserved: {
    last: { record: "reserved", stun },
    cells: [
      refused("agent-stopped"),
      ...["unclear", "unclear", refused("agent-stopped"), refused("agent-stopped")],
      ...["unclear", "unclear"],
    ],
  },
  prepared: {
    last: { record: "prepared", stun, digest: "A" },
    cells: [
      refused("dest-qemu-died"),
      ...["unclear", "unclear", "prepared A: send-prepared A", refused("agent-stopped")],
      ...["unclear", "unclear"],
    ],
  },
  // It may have run: never refused, and started again from QEMU, or by a person from the disks.
  taken: {
    last: { record: "taken", stun },
    cells: [
      "down: send-taken",
      ...[mine, mine, "restarting: start-guest", "unclear", "unclear", "unclear"],
    ],
  },
  // A guest like any other, that may be on its way elsewhere by now.
  complete: {
    last: { record: "complete", stun },
    cells: [still, still, still, still, "unclear", still, still],
  },
  refused: {
    last: { record: "refused", stun, code: "peer-lost" },
    cells: [again, "unclear", "unclear", again, again, "unclear", "unclear"],
  },
};

describe("where a restarted source goes on", () => {
  test.each(Object.entries(sourceRows))("%s", (_, { last, cells }) => {
    const actual = SEEN.map((qemu) => {
      const { state, actions } = recoverSource({ last, qemu, epoch: 7 });
      return [describeSource(state), ...actions.map(describeAction)].join(", ").replace(", ", ": ");
    });
    expect(byQemu(actual)).toEqual(byQemu(cells));
  });

  test("the epoch of the guest's own record counts where the journal has none", () => {
    const { state } = recoverSource({ last: null, qemu: "running", epoch: 3 });
    expect(state).toEqual({ phase: "owner", epoch: 3 });
  });
});

describe("where a restarted dest goes on", () => {
  test.each(Object.entries(destRows))("%s", (_, { last, cells }) => {
    const actual = SEEN.map((qemu) => {
      const { state, actions } = recoverDest({ last, qemu });
      if ("stun" in state) expect(state.stun).toEqual(last?.stun ?? null);
      const name = "digest" in state ? `${state.phase} ${state.digest}` : state.phase;
      return [name, ...actions.map(describeAction)].join(", ").replace(", ", ": ");
    });
    expect(byQemu(actual)).toEqual(byQemu(cells));
  });
});

test("a restart leads back to where the transition that wrote the record had led", () => {
  const shutting: SourceOwnership = { phase: "shutting", stun, digest: "A", incarnation: "d1" };
  const handedOff = nextSourceOwnership(shutting, { kind: "postmigrate" });
  const last = handedOff.actions.find((action) => action.do === "record");
  expect(recoverSource({ last: last!, qemu: "postmigrate", epoch: 7 }).state).toEqual(
    handedOff.state,
  );
  const expecting = { phase: "expecting", stun, digest: "A" } as const;
  const prepared = nextDestOwnership(expecting, { kind: "loaded", digest: "A" });
  const lastOfDest = prepared.actions.find((action) => action.do === "record");
  expect(recoverDest({ last: lastOfDest!, qemu: "paused" }).state).toEqual(prepared.state);
});

function byQemu(cells: readonly string[]): Record<string, string | undefined> {
  expect(cells).toHaveLength(SEEN.length);
  return Object.fromEntries(SEEN.map((qemu, at) => [qemu, cells[at]]));
}

function describeSource(state: SourceOwnership): string {
  switch (state.phase) {
    case "owner":
      return `owner of ${state.epoch}`;
    case "rolling-back":
      return `rolling-back to ${state.stun.epoch - 1}`;
    case "handed-off":
    case "released":
      expect(state.stun).toEqual(stun);
      return `${state.phase} m1/8/1 with ${state.incarnation}`;
    case "reclaimed":
      return `reclaimed for ${state.epoch}`;
    case "done":
      return `done with ${state.epoch}`;
    default:
      return state.phase;
  }
}

function describeAction(action: SourceAction | DestAction): string {
  if ("stun" in action) expect(action.stun).toEqual(stun);
  const name = action.do === "record" ? `record ${action.record}` : action.do;
  if ("digest" in action) return `${name} ${action.digest}`;
  return "code" in action ? `${name} ${action.code}` : name;
}
