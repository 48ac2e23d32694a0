/** What was seen, as a table for `docs/failpoints.md`. */
import type { Action, RoundResult } from "./failpoint-round.ts";

const GROUPS = [
  ["kill", ["kill"]],
  ["stop", ["stop"]],
  ["cut or one-way", ["cut", "one-way"]],
  ["ENOSPC or EIO", ["enospc", "eio"]],
] as const satisfies readonly (readonly [string, readonly Action[]])[];

export function formatOutcomes(results: readonly RoundResult[]): string {
  const keys = [...new Set(results.map(keyOf))];
  const head = ["side", "failpoint", "scenario", "hits", ...GROUPS.map(([title]) => title), "back"];
  const rows = keys.map((key) => rowOf(results.filter((result) => keyOf(result) === key)));
  const lines = [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`);
  return `${lines.join("\n")}\n`;
}

function keyOf({ side, name, scenario }: RoundResult): string {
  return `${side} ${name} ${scenario}`;
}

function rowOf(results: readonly RoundResult[]): readonly string[] {
  const [first] = results;
  if (first === undefined) return [];
  const hits = results.filter(({ hit }) => hit);
  const killed = hits.filter(({ action }) => action === "kill");
  const backMs = killed.flatMap(({ settled }) => settled?.runsMs ?? []);
  const cells = GROUPS.map(([, actions]) => {
    const some = hits.filter(({ action }) => (actions as readonly Action[]).includes(action));
    return [...new Set(some.map(outcomeOf))].join("; ") || "–";
  });
  const { side, name, scenario } = first;
  const back = backMs.length === 0 ? "–" : `${(Math.max(...backMs) / 1000).toFixed(1)} s`;
  return [side, `\`${name}\``, scenario, String(hits.length), ...cells, back];
}

function outcomeOf({ settled, findings, restarted }: RoundResult): string {
  if (settled === null || findings.length > 0) return "**not clean**";
  return `${settled.owner}${restarted ? " (restarted)" : ""}`;
}
