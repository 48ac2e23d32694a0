import { describe, expect, test } from "vitest";
import { nextDestOwnership } from "../dest-ownership.ts";
import { nextSourceOwnership } from "../source-ownership.ts";
import { recoverSource } from "../recover-source.ts";
import { plantedBugs } from "./planted-bugs.ts";
import { rulesOf, type Variant } from "./rules.ts";
import { searchWorlds, type Found } from "./search.ts";

/* All worlds that the production transitions and recoveries can get into with a few faults. The test
 * beside this one, hand-over.model.test.ts, allows more of them. */

function expectKept(found: Found): void {
  const { promise, trace } = found.violation ?? { promise: null, trace: [] };
  expect(promise, `the shortest way there:\n${trace.join("\n")}`).toBeNull();
  expect(found.stuck, `no end is reached from here:\n${found.stuck?.join("\n")}`).toBeNull();
}

const crashes = { sourceCrashes: 1, destCrashes: 1 };

/** None of these takes a guest's memory, or a journal: nobody has to be asked. */
const harmless: readonly (readonly [string, Variant])[] = [
  ["every message is lost once", { attemptsMax: 2, budgets: { links: 1 } }],
  ["both agents are killed", { budgets: { ...crashes, links: 1 } }],
  ["both agents are killed twice", { budgets: { sourceCrashes: 2, destCrashes: 2 } }],
  ["what the dest loads is damaged", { budgets: { ...crashes, damages: 1 } }],
  ["the guest cannot be started", { budgets: { sourceCrashes: 1, contFailures: 1 } }],
  [
    "a person says too early that the guest is the dest's",
    { budgets: { ...crashes, links: 1, sourceWords: 2 } },
  ],
  ["there is a witness", { witness: "atomic", budgets: { ...crashes, links: 1 } }],
];

/** With each of these there are worlds that only a person can lead on, and they are few. */
const harmful: readonly (readonly [string, Variant])[] = [
  ["a QEMU is killed on each side", { budgets: { ...crashes, sourceKills: 1, destKills: 1 } }],
  ["both hosts crash", { budgets: { ...crashes, sourceHostCrashes: 1, destHostCrashes: 1 } }],
  ["a restarted dest cannot start the guest", { budgets: { ...crashes, contFailures: 1 } }],
  ["the dest loses its journal", { budgets: { ...crashes, destForgets: 1 } }],
  ["the source loses its journal", { budgets: { ...crashes, sourceForgets: 1 } }],
];

describe("over a wire that loses, repeats and reorders messages, every promise is kept", () => {
  test.each(harmless)("when %s, and an end is found by itself", (_, variant) => {
    const found = searchWorlds(rulesOf(variant));
    expectKept(found);
    expect(found.needPerson, found.needPersonTrace?.join("\n")).toBe(0);
    expect(found.ends["source runs"]).toBeGreaterThan(0);
    expect(found.ends["dest runs"]).toBeGreaterThan(0);
  });

  test.each(harmful)("when %s, and an end is found, if only by a person", (_, variant) => {
    const found = searchWorlds(rulesOf(variant));
    expectKept(found);
    expect(found.needPerson).toBeGreaterThan(0);
    expect(found.needPerson).toBeLessThan(found.worlds / 5);
  });
});

describe("over a link that keeps the order and is cut now and then", () => {
  const faults = { ...crashes, damages: 1, contFailures: 1 };
  test.each([
    ["two attempts", { attemptsMax: 2, budgets: { damages: 1, contFailures: 1 } }],
    ["crashes", { budgets: faults }],
    ["crashes and dead QEMUs", { budgets: { ...faults, sourceKills: 1, destKills: 1 } }],
  ] as const)("%s: no event comes where its machine has no answer to it", (_, variant) => {
    const found = searchWorlds(rulesOf({ ...variant, wire: "link" }));
    expectKept(found);
    expect(found.illegal).toEqual([]);
  });
});

describe("the search finds what it is made to find", () => {
  test.each(plantedBugs)("$bug", ({ breaks, variant }) => {
    expect(searchWorlds(rulesOf(variant)).violation?.promise).toBe(breaks);
  });

  test("a source that does not ask again after TAKEN waits for ever when COMPLETE is lost", () => {
    const variant: Variant = {
      wire: "link",
      nextSource: (state, event) =>
        state.phase === "released" && event.kind === "failed"
          ? { state, actions: [] }
          : nextSourceOwnership(state, event),
    };
    expect(searchWorlds(rulesOf(variant)).stuck).not.toBeNull();
  });

  test("a dest that never gives up waits for ever for a source that went on without it", () => {
    const variant: Variant = {
      wire: "link",
      nextDest: (state, event) =>
        state.phase === "prepared" && event.kind === "failed"
          ? { state, actions: [] }
          : nextDestOwnership(state, event),
    };
    expect(searchWorlds(rulesOf(variant)).stuck).not.toBeNull();
  });

  test("a restarted source that waits for an answer without asking waits for ever", () => {
    const variant: Variant = {
      budgets: { sourceCrashes: 1, links: 1 },
      nextSource: (state, event) =>
        state.phase === "handed-off" && event.kind === "failed"
          ? { state, actions: [] }
          : nextSourceOwnership(state, event),
      recoverSource: ({ last, qemu, epoch }) =>
        last?.record === "handed-off"
          ? { ...recoverSource({ last, qemu, epoch }), actions: [] }
          : recoverSource({ last, qemu, epoch }),
    };
    expect(searchWorlds(rulesOf(variant)).stuck).not.toBeNull();
  });
});
