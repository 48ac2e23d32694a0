/**
 * The failpoints around the point of no return, each hit once: `run.ts` hits all of them. And what
 * keeps `catalogue.json` honest, which needs no agent.
 */
import { globSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { countFailpoints, FAILPOINTS_MIN, readCatalogue } from "./catalogue.ts";
import { runRound, type Action } from "./failpoint-round.ts";
import { FaultBench } from "./fault-bench.ts";
import type { ScenarioName, Side } from "./scenarios.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SEED = 1;

/** Who has the guest in the end follows from what was durable, and from nothing else. */
const DANGEROUS: readonly (readonly [Side, string, ScenarioName, Action, Side])[] = [
  ["source", "gate.close.after", "complete", "kill", "source"],
  ["source", "journal.handed-off.before", "complete", "kill", "source"],
  ["source", "journal.kept.before", "source-after-begin", "kill", "source"],
  ["source", "journal.reclaimed.after", "refuse", "kill", "source"],
  ["source", "qmp.cont.before", "source-after-reclaimed", "kill", "source"],
  ["dest", "journal.prepared.written", "complete", "kill", "source"],
  ["source", "journal.handed-off.before", "complete", "enospc", "source"],
  ["source", "journal.handed-off.written", "complete", "kill", "dest"],
  ["source", "journal.handed-off.after", "complete", "kill", "dest"],
  ["source", "send.token.before", "complete", "kill", "dest"],
  ["source", "send.token.after", "complete", "kill", "dest"],
  ["source", "journal.released.written", "complete", "kill", "dest"],
  ["source", "send.resume.after", "source-after-handed-off", "kill", "dest"],
  ["dest", "journal.taken.before", "complete", "kill", "dest"],
  ["dest", "journal.taken.written", "complete", "kill", "dest"],
  ["dest", "journal.taken.after", "complete", "kill", "dest"],
  ["dest", "qmp.cont.before", "dest-after-taken", "kill", "dest"],
  ["dest", "qmp.cont.after", "complete", "kill", "dest"],
  ["dest", "images.keep.before", "complete", "kill", "dest"],
  ["source", "send.token.before", "complete", "stop", "dest"],
  ["dest", "journal.taken.after", "complete", "stop", "dest"],
  ["dest", "journal.taken.written", "complete", "eio", "dest"],
];

describe("an agent that fails at a named place", () => {
  let bench: FaultBench;
  beforeAll(async () => {
    bench = await FaultBench.open();
  });
  afterAll(async () => {
    await bench.close();
  });

  it.each(DANGEROUS)("%s %s (%s): %s", async (...place) => {
    const [side, name, scenario, action, owner] = place;
    const result = await runRound(bench, { side, name, scenario, action, seed: SEED });
    const log = result.findings.length > 0 ? bench.logs : "";
    expect(result.findings, log).toEqual([]);
    expect(result).toMatchObject({ hit: true, settled: { owner } });
  });
});

describe("the catalogue", () => {
  const catalogue = readCatalogue();

  it(`has at least ${FAILPOINTS_MIN} failpoints`, () => {
    expect(countFailpoints(catalogue)).toBeGreaterThanOrEqual(FAILPOINTS_MIN);
  });

  it("names what the agents have, no more and no less", () => {
    const inSource = failpointsInSource();
    const names = new Set(catalogue.map(({ name }) => name));
    const gone = [...names].filter((name) => !inSource.some((place) => place.test(name)));
    expect(gone, "in the catalogue alone: was a failpoint removed?").toEqual([]);
    const missed = inSource.filter((place) => ![...names].some((name) => place.test(name)));
    expect(missed, "in no scenario yet: run.ts --discover").toEqual([]);
  });
});

/** A pattern for each call: parts of a name may be put in. */
function failpointsInSource(): readonly RegExp[] {
  const files = globSync("packages/*/src/**/*.ts", { cwd: ROOT });
  return files.flatMap((file) => {
    if (file.endsWith(".test.ts") || file.endsWith("core/src/failpoint.ts")) return [];
    const text = readFileSync(new URL(file, `file://${ROOT}`), "utf8");
    const calls = [...text.matchAll(/\bfailpoint\(["`]([^"`]+)["`]\)/g)];
    return calls.map(([, name = ""]) => {
      const parts = name.split(/\$\{[^}]+\}/).map((part) => part.replaceAll(".", String.raw`\.`));
      return new RegExp(`^${parts.join("[a-z_-]+")}$`);
    });
  });
}
