import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger, ManualClock } from "@vmferry/agent";
import type { MeasuredDisk } from "./measure-disks.ts";
import { leaveProofs, type ProbeProofs, type ProofOptions } from "./probe-proofs.ts";

const logger = createLogger({ role: "source", level: "silent" });
let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "probe-proofs-"));
});
afterEach(() => rm(directory, { recursive: true }));

function disk(name: string, mode: "copy" | "shared"): MeasuredDisk {
  const definition = { id: name, image: name, format: "raw", mode } as const;
  return { definition, path: join(directory, name), sizeBytes: 512, dataBytes: 0 };
}

function leave(options: Partial<ProofOptions> = {}): Promise<ProbeProofs> {
  const common = { probeId: "p1", disks: [], witness: null, logger, clock: new ManualClock() };
  return leaveProofs({ ...common, ...options });
}

test("each shared disk has a proof beside it until that is removed, and no other has one", async () => {
  const proofs = await leave({ disks: [disk("a", "copy"), disk("b", "shared")] });
  expect(await readdir(directory)).toEqual(["b.vmferry-proof-p1"]);
  const seen = await readFile(join(directory, "b.vmferry-proof-p1"), "utf8");
  expect(proofs.disks).toEqual([null, seen]);
  await proofs.remove();
  expect(await readdir(directory)).toEqual([]);
});

test("where one cannot be left none stays, and what was there before does", async () => {
  await writeFile(join(directory, "b.vmferry-proof-p1"), "of somebody");
  await expect(leave({ disks: [disk("a", "shared"), disk("b", "shared")] })).rejects.toThrow(
    "EEXIST",
  );
  expect(await readdir(directory)).toEqual(["b.vmferry-proof-p1"]);
});

test("the shared directory's proof is forgotten with the others", async () => {
  const forgotten: string[] = [];
  const witness = {
    prove: () => Promise.resolve("3c".repeat(32)),
    forget: (id: string) => {
      forgotten.push(id);
      return Promise.resolve();
    },
  };
  const proofs = await leave({ witness });
  expect(proofs.witness).toBe("3c".repeat(32));
  await proofs.remove();
  expect(forgotten).toEqual(["p1"]);
});

test("a shared directory that does not answer is gone without, in time for the rest", async () => {
  const clock = new ManualClock();
  const witness = {
    prove: () => new Promise<string>(() => undefined),
    forget: () => Promise.resolve(),
  };
  const leaving = leave({ witness, clock });
  while (clock.timerCount === 0) await Promise.resolve();
  clock.advance(3000);
  expect((await leaving).witness).toBeNull();
});
