/**
 * Every world that two ownership machines can get into, looked at one by one: which of them break a
 * promise, and from which there is no way to an end without yet another fault.
 */
import { FIRST_WORLD, SENT_DIGEST, stepsOf, type Rules, type World } from "./two-party-world.ts";

export interface Found {
  readonly worlds: number;
  /** The broken promise and the shortest way to it. */
  readonly violation: { readonly promise: string; readonly trace: readonly string[] } | null;
  /** The shortest way to where nobody can end it any more. */
  readonly stuck: readonly string[] | null;
  /** Events that came where their machine has no answer to them. */
  readonly illegal: readonly string[];
}

interface Node {
  readonly world: World;
  readonly from: number;
  readonly label: string;
}

export function searchWorlds(rules: Rules): Found {
  const nodes: Node[] = [{ world: FIRST_WORLD, from: -1, label: "" }];
  const indexOf = new Map([[JSON.stringify(FIRST_WORLD), 0]]);
  const faultless: number[][] = [];
  const illegal = new Set<string>();
  for (let at = 0; at < nodes.length; at++) {
    const { world } = nodes[at]!;
    const promise = brokenPromise(world);
    if (promise !== null) {
      const violation = { promise, trace: traceTo(nodes, at) };
      return { worlds: nodes.length, violation, stuck: null, illegal: [...illegal].sort() };
    }
    for (const step of stepsOf(world, rules)) {
      if (step.illegal !== null) illegal.add(step.illegal);
      const key = JSON.stringify(step.world);
      let to = indexOf.get(key);
      if (to === undefined) {
        to = nodes.push({ world: step.world, from: at, label: step.label }) - 1;
        indexOf.set(key, to);
      }
      if (!step.fault) (faultless[to] ??= []).push(at);
    }
  }
  const lost = firstWithoutEnd(nodes, faultless);
  return {
    worlds: nodes.length,
    violation: null,
    stuck: lost === null ? null : traceTo(nodes, lost),
    illegal: [...illegal].sort(),
  };
}

/** What has to hold in every world; null when all of it does. */
function brokenPromise({ source, sourceMayRun, dests }: World): string | null {
  const running = dests.filter(({ mayRun }) => mayRun);
  if (sourceMayRun && running.length > 0) return "source and dest may both run";
  if (running.length > 1) return "two dests may run";
  if (sourceMayRun && dests.some(({ ran }) => ran)) return "the source runs after the dest has run";
  if (running.some(({ loaded }) => loaded !== SENT_DIGEST))
    return "other memory than was sent runs";
  const last = dests.at(-1)?.state.phase;
  if (source.phase === "reclaimed" && last !== "refused") {
    return "the source takes back what was not refused";
  }
  const given = ["handed-off", "released", "done"].includes(source.phase);
  const taken = dests.some(({ state }) => state.phase === "taken" || state.phase === "owner");
  return taken && !given ? "the dest took what was not handed over" : null;
}

/** One side has the guest, the other knows it, and nothing is under way. */
function isEnd({ source, sourceMayRun, resuming, dests }: World): boolean {
  const phases = dests.map(({ state }) => state.phase);
  const last = dests.at(-1);
  if (source.phase === "done") return last?.state.phase === "owner" && last.ran && !sourceMayRun;
  const over = phases.every((phase) => phase === "refused" || phase === "none");
  return source.phase === "owner" && sourceMayRun && !resuming && over;
}

/** Goes back from the ends over steps that need no fault; the first world that is not reached. */
function firstWithoutEnd(
  nodes: readonly Node[],
  faultless: readonly (readonly number[] | undefined)[],
): number | null {
  const reached = new Set<number>();
  const open = nodes.flatMap(({ world }, at) => (isEnd(world) ? [at] : []));
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (reached.has(at)) continue;
    reached.add(at);
    open.push(...(faultless[at] ?? []));
  }
  const lost = nodes.findIndex((_, at) => !reached.has(at));
  return lost < 0 ? null : lost;
}

function traceTo(nodes: readonly Node[], at: number): string[] {
  const trace: string[] = [];
  for (let node = nodes[at]!; node.from >= 0; node = nodes[node.from]!) trace.unshift(node.label);
  return trace;
}
