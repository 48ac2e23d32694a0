// One migration of a busy guest whose link is cut again and again, either before the stun, memory and
// disk, or while memory follows the guest:
//
//   ended      every connection is ended, and new ones are refused
//   silent     nothing passes and nobody is told; what was held passes in the end
//   swallowed  the same, but what was held is lost, and every connection with it
//
// Afterwards the guest is checked. Prints a line a cut, and exits with 1 when something was not right.
//
//   node test/soak/link-cuts.ts [--phase pre-copy|post-copy] [--cuts 50] [--seed 7] [--json FILE]

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { bulkAt, FaultProxy, Lab, pagesAt } from "@vmferry/testkit";
import { SeededRandom } from "../failpoints/seeded-random.ts";
import { MovingGuest, pause, type MoveOptions, type MovingGuestOptions } from "../moving-guest.ts";
import { resentAfterCuts, type Resent } from "./resent.ts";

const MIB = 1024 * 1024;
const CUT_MS_MIN = 200;
const CUT_MS_MAX = 20_000;
const RECOVERY_MS_MAX = 2000;
/** Of each connection or lane. */
const CREDIT_BYTES = 16 * MIB;
const END_MS_MAX = 300_000;
const VERIFY_MS_MAX = 240_000;

const KINDS = ["ended", "silent", "swallowed"] as const;

interface Soak {
  readonly guest: Omit<MovingGuestOptions, "disks">;
  readonly hasDisk: boolean;
  readonly move: MoveOptions;
  /** Lets it come to an end when all cuts are done. */
  readonly fast: object;
  /** Between two cuts. */
  readonly upMs: readonly [min: number, max: number];
  /** A message that shows that the link works. */
  readonly works: ReturnType<typeof bulkAt>;
}

const SOAKS = {
  "pre-copy": {
    guest: {
      memoryMib: 192,
      workload: { mem: "64M", rate: "max", hot: "0:0", diskrate: "60", disksweep: "16" },
    },
    hasDisk: true,
    // The guest writes faster than this, so that the migration outlasts the cuts.
    move: { limits: { bandwidthBytesPerSecond: 3 * MIB, downtimeMsMax: 1 } },
    fast: { bandwidthBytesPerSecond: null, downtimeMsMax: 2000 },
    upMs: [300, 3000],
    works: bulkAt(1),
  },
  "post-copy": {
    // All of it changes while it is sent for the first time; then the guest asks for most of it.
    guest: {
      memoryMib: 384,
      workload: { mem: "256M", rate: "20000", hot: "0:0", bytes: "64", sweep: "1" },
    },
    hasDisk: false,
    move: { mode: "post-copy", limits: { bandwidthBytesPerSecond: 24 * MIB } },
    fast: { bandwidthBytesPerSecond: null },
    upMs: [300, 900],
    works: pagesAt(1),
  },
} as const satisfies Readonly<Record<string, Soak>>;

interface Cut {
  readonly number: number;
  readonly phase: string;
  readonly kind: (typeof KINDS)[number];
  readonly cutMs: number;
  readonly recoveryMs: number;
}

const { values } = parseArgs({
  options: {
    phase: { type: "string", default: "pre-copy" },
    cuts: { type: "string", default: "50" },
    seed: { type: "string", default: "7" },
    json: { type: "string" },
  },
});
if (!(values.phase in SOAKS)) throw new Error("--phase is pre-copy or post-copy");
const phaseOfCuts = values.phase as keyof typeof SOAKS;
const soak: Soak = SOAKS[phaseOfCuts];
const random = new SeededRandom(Number(values.seed));
console.log(`${values.cuts} cuts in ${values.phase}, seed ${values.seed}`);

const proxy = await FaultProxy.open();
const lab = await Lab.open({ peerUrl: (port) => proxy.towards(port) });
const cuts: Cut[] = [];
let findings: readonly string[] = ["it did not come to an end"];
try {
  findings = await run();
} catch (error) {
  console.error(error);
  for (const { logText } of [lab.source, lab.dest]) {
    // What is no log line, such as the stack of a crash, stands in front.
    console.error(`${logText.slice(0, 3000)}\n…\n${logText.slice(-3000)}`);
  }
} finally {
  report(findings);
  await lab.close();
  await proxy.close();
}

/** What is wrong. */
async function run(): Promise<readonly string[]> {
  if (soak.hasDisk) await lab.makeDisk("cuts.raw", 256 * MIB, { fill: 0.3 });
  const disks = soak.hasDisk ? [{ id: "disk0", image: "cuts.raw" }] : [];
  const guest = await MovingGuest.boot(lab, { ...soak.guest, disks });
  const id = await guest.migrate(soak.move);
  if (phaseOfCuts === "post-copy") {
    await guest.inPhase(id, "post-copy");
    const slow = { limits: { bandwidthBytesPerSecond: MIB } };
    await lab.source.api.request("PATCH", `/v1/migrations/${id}`, slow);
  } else {
    await guest.until(id, ({ wire }) => wire.bytes > 2 * MIB);
  }
  for (let number = 1; number <= Number(values.cuts); number++) {
    await pause(random.between(...soak.upMs));
    const { phase, ram } = await lab.source.api.migration(id);
    const cut = await cutOnce(id, number, phase);
    cuts.push(cut);
    console.log(JSON.stringify({ ...cut, remainingBytes: ram.remainingBytes }));
  }
  const before = await lab.source.api.migration(id);
  console.log(JSON.stringify({ phase: before.phase, wire: before.wire, error: before.error }));
  await lab.source.api.request("PATCH", `/v1/migrations/${id}`, { limits: soak.fast });
  const { phase, error, result } = await lab.source.api.wait(id, END_MS_MAX);
  console.log(JSON.stringify({ phase, error, result }));
  const verdict = await guest.verifyAtDest(VERIFY_MS_MAX);
  console.log(JSON.stringify({ silenceMs: verdict.silenceMs, findings: verdict.findings }));
  await guest.end();
  const said = verdict.findings.map(({ code, count, detail }) => `${code} ×${count}: ${detail}`);
  return phase === "completed" ? said : [`the migration is ${phase}`, ...said];
}

async function cutOnce(id: string, number: number, phase: string): Promise<Cut> {
  const kind = random.pick(KINDS);
  // Half of them last less than 0.7 seconds, one of seven more than 6.
  const cutMs = Math.round(CUT_MS_MIN * (CUT_MS_MAX / CUT_MS_MIN) ** (random.next() ** 2));
  if (kind === "ended") proxy.cut();
  else proxy.block();
  await pause(cutMs);
  if (kind === "swallowed") proxy.cutOnce();
  proxy.restore();
  const backMs = performance.now();
  await Promise.race([proxy.seen(soak.works), ended(id)]);
  const recoveryMs = Math.round(performance.now() - backMs);
  return { number, phase, kind, cutMs, recoveryMs };
}

/** Rejects when the migration is over. */
async function ended(id: string): Promise<never> {
  const { phase, error } = await lab.source.api.wait(id, END_MS_MAX);
  throw new Error(`the migration is ${phase}: ${JSON.stringify(error)}`);
}

function report(findings: readonly string[]): void {
  const recoveries = cuts.map(({ recoveryMs }) => recoveryMs).toSorted((a, b) => a - b);
  const resent = resentAfterCuts(lab.source.log);
  const wrong = [...findings];
  const late = recoveries.filter((ms) => ms > RECOVERY_MS_MAX).length;
  if (late > 0) wrong.push(`${late} recoveries took longer than ${RECOVERY_MS_MAX} ms`);
  const tooMuch = resent.filter(({ bytes, unacknowledgedBytes }) => {
    return bytes > (unacknowledgedBytes ?? CREDIT_BYTES);
  });
  if (tooMuch.length > 0) wrong.push(`sent again what was acknowledged: ${tooMuch.length} times`);
  const summary = {
    ...{ phase: values.phase, seed: Number(values.seed), cuts: cuts.length },
    inPhase: cuts.filter(({ phase }) => phase === values.phase).length,
    cutMs: cuts.reduce((sum, { cutMs }) => sum + cutMs, 0),
    recoveryMs: { p50: recoveries[recoveries.length >> 1], max: recoveries.at(-1), late },
    ...{ reconnects: resent.length, resentBytes: sumOf(resent), resentBytesMax: maxOf(resent) },
    findings: wrong,
  };
  console.log(JSON.stringify(summary));
  if (values.json !== undefined) {
    writeFileSync(values.json, `${JSON.stringify({ ...summary, each: cuts, resent }, null, 2)}\n`);
  }
  process.exitCode = wrong.length === 0 ? 0 : 1;
}

function sumOf(resent: readonly Resent[]): number {
  return resent.reduce((sum, { bytes }) => sum + bytes, 0);
}

function maxOf(resent: readonly Resent[]): number {
  return Math.max(0, ...resent.map(({ bytes }) => bytes));
}
