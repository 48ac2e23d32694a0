// Twenty migrations, or as many as the first argument says, of fresh guests of 1 GiB through the
// same two agents; prints a table and exits with 1 when one of them was not clean.
//
//   node test/soak/twenty-in-a-row.ts [number of migrations] [MiB of memory]

import { Lab } from "@vmferry/testkit";
import { isClean, moveOne, type Move } from "./moves-in-a-row.ts";

const [count = 20, memoryMib = 1024] = process.argv.slice(2).map(Number);
const COLUMNS: readonly (keyof Move)[] = [
  "number",
  "phase",
  "totalMs",
  "downtimeMs",
  "silenceMs",
  "wireMib",
  "agentRssMib",
];

const lab = await Lab.open();
const moves: Move[] = [];
try {
  console.log(row(COLUMNS));
  for (let number = 1; number <= count; number++) {
    const mem = `${Math.floor(memoryMib / 2)}M`;
    const move = await moveOne(lab, number, { memoryMib, workload: { mem } });
    moves.push(move);
    console.log(row(COLUMNS.map((column) => String(move[column] ?? "-"))));
    if (isClean(move)) continue;
    const { error, sameDigest, findings } = move;
    console.log(JSON.stringify({ error, sameDigest, findings }, null, 2));
  }
} finally {
  await lab.close();
}
const clean = moves.filter(isClean).length;
const downtimes = moves.flatMap(({ downtimeMs }) => downtimeMs ?? []).toSorted((a, b) => a - b);
console.log(
  `${clean} of ${count} clean; downtime ${downtimes[0]} to ${downtimes.at(-1)} ms, ` +
    `median ${downtimes[Math.floor(downtimes.length / 2)]} ms`,
);
process.exitCode = clean === count ? 0 : 1;

function row(cells: readonly string[]): string {
  return cells.map((cell) => cell.padStart(12)).join(" ");
}
