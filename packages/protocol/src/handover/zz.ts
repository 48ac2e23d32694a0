import { FIRST_WORLD, stepsOf } from "./two-party-world.ts";
import { nextSourceOwnership } from "./source-ownership.ts";
import { nextDestOwnership } from "./dest-ownership.ts";
for (const [wire, attemptsMax] of [["link",1],["link",2],["bag",1],["bag",2]] as const) {
  const rules = { machines: { source: nextSourceOwnership, dest: nextDestOwnership }, wire, attemptsMax };
  const t = performance.now(); const seen = new Map<string, number>(); const queue = [FIRST_WORLD]; seen.set(JSON.stringify(FIRST_WORLD), 0); let tr = 0; const illegal = new Set<string>();
  for (let i = 0; i < queue.length; i++) { const w = queue[i]!; for (const s of stepsOf(w, rules)) { tr++; if (s.illegal) { illegal.add(s.illegal); continue; } const k = JSON.stringify(s.world); if (!seen.has(k)) { seen.set(k, queue.length); queue.push(s.world); } } if (queue.length > 400000) break; }
  console.log(wire, attemptsMax, queue.length, tr, performance.now() - t | 0, [...illegal].sort());
}
