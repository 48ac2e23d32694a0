// One migration of a busy guest, memory and disk, whose link is cut again and again before the stun:
//
//   ended      every connection is ended, and new ones are refused
//   silent     nothing passes and nobody is told; what was held passes in the end
//   swallowed  the same, but what was held is lost, and every connection with it
//
// Afterwards the guest is checked. Prints a line a cut, and exits with 1 when something was not right.
//
//   node test/soak/link-cuts.ts [--cuts 50] [--seed 7]

import { parseArgs } from "node:util";
import { bulkAt, FaultProxy, Lab } from "@vmferry/testkit";
import { MovingGuest, pause } from "../moving-guest.ts";

const MIB = 1024 * 1024;
/** The guest writes faster than this, so that the migration outlasts the cuts. */
const SLOW = { bandwidthBytesPerSecond: 3 * MIB, downtimeMsMax: 1 };
const FAST = { bandwidthBytesPerSecond: null, downtimeMsMax: 2000 };
const CUT_MS_MIN = 200;
const CUT_MS_MAX = 20_000;
/** Between two cuts. */
const UP_MS_MIN = 300;
const UP_MS_MAX = 3000;
const RECOVERY_MS_MAX = 2000;
const CREDIT_BYTES = 16 * MIB;
const END_MS_MAX = 300_000;

const KINDS = ["ended", "silent", "swallowed"] as const;

interface Cut {
  readonly number: number;
  readonly phase: string;
  readonly kind: (typeof KINDS)[number];
  readonly cutMs: number;
  readonly recoveryMs: number;
}

const { values } = parseArgs({
  options: { cuts: { type: "string", default: "50" }, seed: { type: "string", default: "7" } },
});
const random = mulberry32(Number(values.seed));
console.log(`${values.cuts} cuts, seed ${values.seed}`);

const proxy = await FaultProxy.open();
const lab = await Lab.open({ peerUrl: (port) => proxy.towards(port) });
const cuts: Cut[] = [];
let isGood = true;
try {
  await lab.makeDisk("cuts.raw", 256 * MIB, { fill: 0.3 });
  const guest = await MovingGuest.boot(lab, {
    memoryMib: 192,
    workload: { mem: "64M", rate: "max", hot: "0:0", diskrate: "60", disksweep: "16" },
    disks: [{ id: "disk0", image: "cuts.raw" }],
  });
  const id = await guest.migrate({ limits: SLOW });
  await guest.until(id, ({ wire }) => wire.bytes > 2 * MIB);
  for (let number = 1; number <= Number(values.cuts); number++) {
    await pause(between(UP_MS_MIN, UP_MS_MAX));
    const { phase } = await lab.source.api.migration(id);
    const cut = await cutOnce(id, number, phase);
    cuts.push(cut);
    console.log(JSON.stringify(cut));
  }
  const before = await lab.source.api.migration(id);
  console.log(JSON.stringify({ phase: before.phase, wire: before.wire, error: before.error }));
  await lab.source.api.request("PATCH", `/v1/migrations/${id}`, { limits: FAST });
  const { phase, error, result } = await lab.source.api.wait(id, END_MS_MAX);
  console.log(JSON.stringify({ phase, error, result }));
  const verdict = await guest.verifyAtDest();
  console.log(JSON.stringify({ silenceMs: verdict.silenceMs, findings: verdict.findings }));
  isGood = phase === "completed" && verdict.findings.length === 0;
  await guest.end();
} catch (error) {
  isGood = false;
  console.error(error);
  for (const { logText } of [lab.source, lab.dest]) {
    // What is no log line, such as the stack of a crash, stands in front.
    console.error(`${logText.slice(0, 3000)}\n…\n${logText.slice(-3000)}`);
  }
} finally {
  report();
  await lab.close();
  await proxy.close();
}
process.exitCode = isGood ? 0 : 1;

async function cutOnce(id: string, number: number, phase: string): Promise<Cut> {
  const kind = KINDS[Math.floor(random() * KINDS.length)] ?? "ended";
  // As many of them last 0.2 to 2 seconds as 2 to 20.
  const cutMs = Math.round(CUT_MS_MIN * (CUT_MS_MAX / CUT_MS_MIN) ** random());
  if (kind === "ended") proxy.cut();
  else proxy.block();
  await pause(cutMs);
  if (kind === "swallowed") proxy.cutOnce();
  proxy.restore();
  const backMs = performance.now();
  await Promise.race([proxy.seen(bulkAt(1)), ended(id)]);
  const recoveryMs = Math.round(performance.now() - backMs);
  return { number, phase, kind, cutMs, recoveryMs };
}

/** Rejects when the migration is over. */
async function ended(id: string): Promise<never> {
  const { phase, error } = await lab.source.api.wait(id, END_MS_MAX);
  throw new Error(`the migration is ${phase}: ${JSON.stringify(error)}`);
}

function report(): void {
  const recoveries = cuts.map(({ recoveryMs }) => recoveryMs).toSorted((a, b) => a - b);
  const resent = lab.source.logText
    .split("\n")
    .filter((line) => line.includes("the link is back"))
    .map((line) => (JSON.parse(line) as { resentBytes: number }).resentBytes);
  const resentMax = Math.max(0, ...resent);
  const slow = recoveries.filter((ms) => ms > RECOVERY_MS_MAX).length;
  console.log(
    `${cuts.length} cuts survived; recovery p50 ${recoveries[recoveries.length >> 1]} ms, ` +
      `max ${recoveries.at(-1)} ms, over ${RECOVERY_MS_MAX} ms: ${slow}; ` +
      `${resent.length} reconnects, sent again ${sum(resent)} bytes in all, ` +
      `${resentMax} at most at once, of a window of ${CREDIT_BYTES}`,
  );
  isGood &&= slow === 0 && resentMax <= CREDIT_BYTES;
}

function between(min: number, max: number): number {
  return min + random() * (max - min);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** Numbers of 0 to 1 that follow from the seed. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
