import { describe, expect, test } from "vitest";
import { nextDestOwnership } from "./dest-ownership.ts";
import { nextSourceOwnership } from "./source-ownership.ts";
import { searchWorlds } from "./two-party-search.ts";
import type { Machines } from "./two-party-world.ts";

/* All worlds that the production transitions can get into with any loss of messages, any failure of
 * an attempt, a dest that answers without its memory, and two attempts. No crashes of an agent. */

const ours: Machines = { source: nextSourceOwnership, dest: nextDestOwnership };

describe("over a wire that loses, repeats and reorders messages", () => {
  test.each([1, 2])("%i attempts keep every promise, and always come to an end", (attemptsMax) => {
    const found = searchWorlds({ machines: ours, wire: "bag", attemptsMax });
    expect(found.violation).toBeNull();
    expect(found.stuck).toBeNull();
    expect(found.worlds).toBeGreaterThan(attemptsMax === 1 ? 50 : 1000);
  });
});

describe("over a link that keeps the order and is cut now and then", () => {
  test.each([1, 2])("%i attempts keep every promise, and always come to an end", (attemptsMax) => {
    const found = searchWorlds({ machines: ours, wire: "link", attemptsMax });
    expect(found.violation).toBeNull();
    expect(found.stuck).toBeNull();
    expect(found.worlds).toBeGreaterThan(attemptsMax === 1 ? 200 : 2000);
  });

  test("no event comes where its machine has no answer to it", () => {
    expect(searchWorlds({ machines: ours, wire: "link", attemptsMax: 2 }).illegal).toEqual([]);
  });
});

describe("the search finds what it is made to find", () => {
  const mutants: readonly (readonly [string, string, Partial<Machines>])[] = [
    [
      "a source that resumes on a time-out after the hand-over",
      "the source takes back what was not refused",
      {
        source: (state, event) =>
          state.phase === "handed-off" && event.kind === "failed"
            ? nextSourceOwnership(state, { ...state, kind: "refused" })
            : nextSourceOwnership(state, event),
      },
    ],
    [
      "a source that believes a dest which has lost its memory",
      "the source takes back what was not refused",
      {
        source: (state, event) =>
          "incarnation" in event && "incarnation" in state
            ? nextSourceOwnership(state, { ...event, incarnation: state.incarnation })
            : nextSourceOwnership(state, event),
      },
    ],
    [
      "a source that takes the refusal of an older attempt for that of this one",
      "the source takes back what was not refused",
      {
        source: (state, event) =>
          event.kind === "refused" && "stun" in state
            ? nextSourceOwnership(state, { ...event, stun: state.stun })
            : nextSourceOwnership(state, event),
      },
    ],
    [
      "a source that hands over before its QEMU has said postmigrate",
      "source and dest may both run",
      {
        source: (state, event) =>
          state.phase === "awaiting-prepared" && event.kind === "prepared"
            ? nextSourceOwnership(nextSourceOwnership(state, event).state, { kind: "postmigrate" })
            : nextSourceOwnership(state, event),
      },
    ],
    [
      "a dest that starts the guest as soon as it is loaded",
      "source and dest may both run",
      {
        dest: (state, event) => {
          const step = nextDestOwnership(state, event);
          if (step.state.phase !== "prepared" || state.phase === "prepared") return step;
          return nextDestOwnership(step.state, { kind: "token", stun: step.state.stun });
        },
      },
    ],
    [
      "a dest that acts on the token of another attempt",
      "two dests may run",
      {
        dest: (state, event) =>
          state.phase === "prepared" && event.kind === "token"
            ? nextDestOwnership(state, { ...event, stun: state.stun })
            : nextDestOwnership(state, event),
      },
    ],
    [
      "a dest that refuses after it has started the guest",
      "the source runs after the dest has run",
      {
        dest: (state, event) =>
          state.phase === "owner" && event.kind === "token"
            ? nextDestOwnership({ ...state, phase: "taken" }, { kind: "cont-failed" })
            : nextDestOwnership(state, event),
      },
    ],
    [
      "a pair that does not compare what was sent with what was loaded",
      "other memory than was sent runs",
      {
        dest: (state, event) =>
          nextDestOwnership(state, "digest" in event ? { ...event, digest: "any" } : event),
        source: (state, event) =>
          nextSourceOwnership(state, "digest" in event ? { ...event, digest: "any" } : event),
      },
    ],
  ];

  test.each(mutants)("%s: %s", (_, promise, mutant) => {
    const found = searchWorlds({ machines: { ...ours, ...mutant }, wire: "bag", attemptsMax: 2 });
    expect(found.violation?.promise).toBe(promise);
  });

  test("a source that does not ask again after TAKEN waits for ever when COMPLETE is lost", () => {
    const source: Machines["source"] = (state, event) =>
      state.phase === "released" && event.kind === "failed"
        ? { state, actions: [] }
        : nextSourceOwnership(state, event);
    const found = searchWorlds({ machines: { ...ours, source }, wire: "link", attemptsMax: 1 });
    expect(found.stuck?.slice(-2)).toEqual(["source handed-off + taken", "the link is cut"]);
  });

  test("a dest that never gives up waits for ever for a source that went on without it", () => {
    const dest: Machines["dest"] = (state, event) =>
      state.phase === "prepared" && event.kind === "failed"
        ? { state, actions: [] }
        : nextDestOwnership(state, event);
    const found = searchWorlds({ machines: { ...ours, dest }, wire: "link", attemptsMax: 1 });
    expect(found.stuck).not.toBeNull();
  });
});
