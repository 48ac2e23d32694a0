/**
 * The ways through a migration by which every failpoint is passed: one that completes, those that end
 * otherwise, and the second life of an agent that died on the way.
 */
import type { MoveOptions } from "../moving-guest.ts";

export type Side = "source" | "dest";

export interface Scenario {
  /** Whose failpoints are looked at. */
  readonly sides: readonly Side[];
  /** This agent dies there first: then it is its next life whose failpoints are looked at. */
  readonly first?: { readonly side: Side; readonly at: string };
  /** What is done to the migration while it is under way. */
  readonly during?: "cancel" | "refuse";
  /** Null where the agent only finds its guest again. */
  readonly request: MoveOptions | null;
}

const MIB = 1024 * 1024;
const FAST: MoveOptions = {};
/** The disk follows the guest. */
const LAZY: MoveOptions = { disk: { handover: "lazy" } };
/** Slow enough to be cancelled while the disk is copied. */
const SLOW: MoveOptions = { limits: { bandwidthBytesPerSecond: 12 * MIB } };

/** In this order each failpoint is looked for; the first that passes it is where it is hit. */
export const SCENARIOS = {
  complete: { sides: ["source", "dest"], request: FAST },
  lazy: { sides: ["source", "dest"], request: LAZY },
  cancel: { sides: ["source", "dest"], during: "cancel", request: SLOW },
  refuse: { sides: ["source", "dest"], during: "refuse", request: FAST },
  "source-after-begin": {
    sides: ["source"],
    first: { side: "source", at: "gate.close.after" },
    request: FAST,
  },
  "source-after-handed-off": {
    sides: ["source"],
    first: { side: "source", at: "journal.handed-off.after" },
    request: FAST,
  },
  "source-after-reclaimed": {
    sides: ["source"],
    first: { side: "source", at: "journal.reclaimed.after" },
    during: "refuse",
    request: FAST,
  },
  "dest-after-reserved": {
    sides: ["dest"],
    first: { side: "dest", at: "images.unlock.before" },
    request: FAST,
  },
  "dest-after-prepared": {
    sides: ["dest"],
    first: { side: "dest", at: "journal.taken.before" },
    request: FAST,
  },
  "dest-after-taken": {
    sides: ["dest"],
    first: { side: "dest", at: "journal.taken.after" },
    request: FAST,
  },
  "dest-after-complete": {
    sides: ["dest"],
    first: { side: "dest", at: "journal.complete.after" },
    request: FAST,
  },
  start: { sides: ["source"], request: null },
} as const satisfies Record<string, Scenario>;

export type ScenarioName = keyof typeof SCENARIOS;

export const SCENARIO_NAMES = Object.keys(SCENARIOS) as ScenarioName[];

export function scenarioOf(name: ScenarioName): Scenario {
  return SCENARIOS[name];
}
