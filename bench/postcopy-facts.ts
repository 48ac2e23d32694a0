// What QEMU does with post-copy, tried on this machine's QEMU: docs/postcopy.md has what was seen.
//
//   node bench/postcopy-facts.ts [experiment...]

import { FLOW_EXPERIMENTS } from "./postcopy-flow.ts";
import { WAY_BACK_EXPERIMENTS } from "./postcopy-ways-back.ts";

const startedMs = performance.now();
const wanted = process.argv.slice(2);
for (const [name, run] of Object.entries({ ...FLOW_EXPERIMENTS, ...WAY_BACK_EXPERIMENTS })) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  console.log(`=== ${name}`);
  await run((what) => {
    console.log(`${((performance.now() - startedMs) / 1000).toFixed(3)} ${what}`);
  });
}
