import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { StunRef } from "@vmferry/protocol";
import { Witness } from "./witness.ts";

/* Many deciders of both sides at once, as different agents: each has a witness of its own. */

const STUNS: readonly StunRef[] = Array.from({ length: 10 }, (_, i) => ({
  migrationId: "m1",
  epoch: 7,
  generation: i,
}));
const PROCESSES = 4;
const DECIDERS = 25;
/** They make some thousand files durable, and the disk may be a slow one. */
const TIMEOUT_MS = 60_000;

vi.setConfig({ testTimeout: TIMEOUT_MS });

let sharedDir: string;
let children: ChildProcessWithoutNullStreams[];

beforeEach(async () => {
  sharedDir = await mkdtemp(join(tmpdir(), "vmferry-shared-"));
  children = [];
  await (await Witness.open(sharedDir)).prove("m1");
});
afterEach(async () => {
  for (const child of children) child.kill("SIGKILL");
  await rm(sharedDir, { recursive: true });
});

/** When it is told to, decides every stun as each of many; half of them are of either side. */
async function deciders(): Promise<ChildProcessWithoutNullStreams> {
  const script = `
    import { Witness } from ${JSON.stringify(join(import.meta.dirname, "witness.ts"))};
    const options = { timeoutMs: ${TIMEOUT_MS} };
    const witnesses = await Promise.all(
      Array.from({ length: ${DECIDERS} }, () => Witness.open(${JSON.stringify(sharedDir)}, options)),
    );
    process.stdout.write("[");
    process.stdin.once("data", async () => {
      const told = [];
      for (const stun of ${JSON.stringify(STUNS)}) {
        const answers = witnesses.map((witness, i) =>
          witness.decide(stun, i % 2 === 0 ? "taken" : "revoked", "i" + i, options),
        );
        told.push(await Promise.all(answers));
      }
      process.stdout.write(JSON.stringify(told) + "]");
      process.stdin.destroy();
    });
  `;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script]);
  children.push(child);
  child.stderr.pipe(process.stderr);
  await once(child.stdout, "readable");
  return child;
}

test("a hundred deciders of both sides in four processes are all told the same", async () => {
  const ready = await Promise.all(Array.from({ length: PROCESSES }, deciders));
  const outputs = ready.map((child) => text(child.stdout));
  for (const child of ready) child.stdin.write("go");
  const told = (await Promise.all(outputs)).map((output) => JSON.parse(output) as string[][][]);
  const witness = await Witness.open(sharedDir);
  for (const [i, stun] of STUNS.entries()) {
    const answers = told.flatMap(([ofProcess]) => ofProcess![i]!);
    expect(answers.length).toBe(PROCESSES * DECIDERS);
    expect(new Set(answers)).toEqual(new Set([await witness.look(stun)]));
  }
  const names = await readdir(join(sharedDir, "vmferry-witness"));
  expect(names.filter((name) => !name.endsWith(".decision"))).toEqual(["m1.proof"]);
  expect(names.length).toBe(STUNS.length + 1);
});

test("a process that is killed while it decides leaves all or nothing of a decision", async () => {
  const child = await deciders();
  const exit = once(child, "exit");
  child.stdin.write("go");
  // Somewhere in between: wherever that is, the rest holds.
  while ((await readdir(join(sharedDir, "vmferry-witness"))).length < 5) continue;
  child.kill("SIGKILL");
  await exit;
  const witness = await Witness.open(sharedDir);
  for (const stun of STUNS) {
    const stands = await witness.look(stun);
    const told = await witness.decide(stun, "revoked", "s1");
    expect(told).toBe(stands ?? "revoked");
    expect(await witness.decide(stun, "taken", "d1")).toBe(told);
  }
});
