import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync } from "node:fs";
import { readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { expectSilentAtSource } from "../expect-guest.ts";
import { expectWholeDisk, type FollowingDisk } from "../expect-whole-disk.ts";
import type { MovingGuest } from "../moving-guest.ts";
import { writeProbedQemu } from "../probed-qemu.ts";
import { migrateByPostcopy, RESTLESS_GUEST } from "../restless-guest.ts";
import { useProxiedLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const WAIT_MS = 60_000;
/** What is missing at the hand-over takes this link many seconds. */
const SLOW_BYTES_PER_SECOND = 4 * MIB;

/** Undoes what was done to a file. */
type Mend = () => Promise<void>;

async function takeAway(path: string): Promise<Mend> {
  await rename(path, `${path}.away`);
  return () => rename(`${path}.away`, path);
}

async function damage(path: string): Promise<Mend> {
  const content = await readFile(path);
  await truncate(path, content.length - 1);
  return () => writeFile(path, content);
}

/** As somebody who looks into the image, and could write to it. */
async function openForWriting(path: string): Promise<Mend> {
  const program = spawn("qemu-io", ["-f", "raw", path], { stdio: ["pipe", "pipe", "inherit"] });
  program.stdin.write("length\n");
  await once(program.stdout, "data");
  return async () => {
    program.stdin.end("quit\n");
    await once(program, "exit");
  };
}

describe("a source agent that is started anew, and cannot serve what follows the guest", () => {
  const probes = mkdtempSync(join(tmpdir(), "vmferry-probe-"));
  const test = useProxiedLab({ dest: { flags: ["--qemu", join(probes, "probed-qemu")] } });
  beforeAll(async () => {
    await writeProbedQemu(probes);
  });
  afterEach(async () => {
    // A test that failed half-way leaves its agent dead.
    if (!(await test.lab.source.api.guests().catch(() => null))) await test.lab.startSource();
  });
  afterAll(async () => {
    await rm(probes, { recursive: true });
  });

  /** The agent dies, and the next one says why it serves nothing; that is mended when it resolves. */
  const restartHindered = async (
    guest: MovingGuest,
    id: string,
    {
      hinder,
      reasons,
    }: { readonly hinder: () => Promise<Mend>; readonly reasons: readonly string[] },
  ): Promise<void> => {
    const { source } = test.lab;
    await source.kill();
    const mend = await hinder();
    try {
      await test.lab.startSource();
      const { error } = await guest.inPhase(id, "in-doubt", WAIT_MS);
      for (const reason of reasons) expect(error?.detail).toContain(reason);
      await expect(test.lab.source.api.resolve(id, "dest")).rejects.toMatchObject({
        code: "not-in-doubt",
      });
      await expectSilentAtSource(guest);
    } finally {
      await mend();
    }
  };

  it.each([
    { what: "is away", suffix: "pages", hinder: takeAway, reason: "ENOENT" },
    {
      what: "has a damaged index",
      suffix: "pages.index",
      hinder: damage,
      reason: "cannot be used",
    },
  ])("because its memory $what serves it as soon as that is mended", async (harm) => {
    const guest = await test.boot(RESTLESS_GUEST);
    const id = await migrateByPostcopy(guest, SLOW_BYTES_PER_SECOND);
    await guest.inPhase(id, "post-copy");
    const path = join(test.lab.directory, "s", "memory", `${id}.${harm.suffix}`);
    await restartHindered(guest, id, {
      hinder: () => harm.hinder(path),
      reasons: ["The memory that follows the guest is not served", harm.reason, path],
    });
    const migration = await test.lab.source.api.wait(id, WAIT_MS);
    expect(migration).toMatchObject({ phase: "completed", error: null });
    expect(migration.phases.map(({ phase }) => phase).slice(-3)).toEqual([
      ...["in-doubt", "post-copy", "completed"],
    ]);
    expect(await test.lab.dest.api.wait(id, WAIT_MS)).toMatchObject({ phase: "completed" });
    expect((await guest.verifyAtDest()).findings).toEqual([]);
    await expect.poll(() => guest.qemus("source"), { timeout: 10_000 }).toEqual([]);
  });

  it.each([
    { what: "is away", hinder: takeAway, reason: "ENOENT" },
    {
      what: "is open elsewhere",
      hinder: openForWriting,
      reason: "another program claims it (write)",
    },
  ])("because its disk $what serves it as soon as that is mended", async (harm) => {
    const image = `${harm.hinder.name}.raw`;
    const path = await test.lab.makeDisk(image, 256 * MIB, { fill: 0.5 });
    const guest = await test.boot({
      workload: { rate: "500", diskrate: "100", disksweep: "8" },
      disks: [{ id: "disk0", image }],
    });
    const limits = { bandwidthBytesPerSecond: 8 * MIB };
    const id = await guest.migrate({ disk: { handover: "lazy" }, limits });
    await guest.inPhase(id, "post-copy");
    await restartHindered(guest, id, {
      hinder: () => harm.hinder(path),
      reasons: ["A disk that follows the guest is not served", harm.reason, path],
    });
    const arrived: FollowingDisk = { guest, image, id };
    const migration = await expectWholeDisk(arrived, probes);
    expect(migration.phases.map(({ phase }) => phase).slice(-3)).toEqual([
      ...["in-doubt", "post-copy", "completed"],
    ]);
  });
});
