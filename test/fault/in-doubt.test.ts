import { mkdtempSync } from "node:fs";
import { access, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ApiProblem, controlOf } from "@vmferry/testkit";
import {
  expectMoves,
  expectNothingAtDest,
  expectSilentAtSource,
  expectWorksAtSource,
} from "../expect-guest.ts";
import { LONG_PRE_COPY } from "../held-open.ts";
import { pause, type MovingGuest } from "../moving-guest.ts";
import { typeCont, writeProbedQemu } from "../probed-qemu.ts";
import { useProxiedLab, type ProxiedTestLab } from "../test-lab.ts";

/** Migrates until TOKEN is on its way, and has not arrived. */
async function untilToken(test: ProxiedTestLab, guest: MovingGuest): Promise<string> {
  const held = test.proxy.hold(controlOf("token"));
  const id = await guest.migrate();
  await held;
  return id;
}

function refusedWith(code: string): (error: unknown) => boolean {
  return (error) => error instanceof ApiProblem && error.code === code;
}

async function killDestHost(test: ProxiedTestLab, guest: MovingGuest): Promise<void> {
  const { pid } = await guest.atDest();
  await test.lab.dest.kill();
  process.kill(pid!, "SIGKILL");
}

describe("an operator who settles whose the guest is", () => {
  const test = useProxiedLab();

  it("at the source, when the dest is gone: the guest comes back, and a late dest refuses", async () => {
    const guest = await test.boot();
    const id = await untilToken(test, guest);
    await killDestHost(test, guest);
    test.proxy.restore();
    await guest.inPhase(id, "in-doubt", 30_000);
    await expectSilentAtSource(guest);
    await test.lab.source.api.resolve(id, "source");
    const migration = await test.lab.source.api.wait(id, 20_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "settled-by-operator" } });
    expect(await guest.atSource()).toMatchObject({ state: "running", epoch: 3 });
    await expectWorksAtSource(guest, performance.now());
    await test.lab.startDest();
    await expectNothingAtDest(guest);
    await expectMoves(guest);
  });

  it("at the source, when a disk was to follow: the guest has its disk back", async () => {
    await test.lab.makeDisk("kept.raw", 64 * 1024 * 1024, { fill: 0.5 });
    const guest = await test.boot({
      workload: { diskrate: "500", diskthreads: "2" },
      disks: [{ id: "disk0", image: "kept.raw" }],
    });
    const held = test.proxy.hold(controlOf("token"));
    const id = await guest.migrate({ disk: { handover: "lazy" } });
    await held;
    await killDestHost(test, guest);
    test.proxy.restore();
    await guest.inPhase(id, "in-doubt", 30_000);
    await test.lab.source.api.resolve(id, "source");
    const migration = await test.lab.source.api.wait(id, 20_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "settled-by-operator" } });
    await expectWorksAtSource(guest, performance.now());
    await test.lab.startDest();
    await expectNothingAtDest(guest);
    await expectMoves(guest);
  });

  it("at the dest, when the source is gone: the guest runs there", async () => {
    const guest = await test.boot();
    const id = await untilToken(test, guest);
    const { pid } = await guest.atSource();
    await test.lab.source.kill();
    process.kill(pid!, "SIGKILL");
    test.proxy.cut();
    await test.lab.dest.api.resolve(id, "dest");
    expect(await test.lab.dest.api.wait(id, 20_000)).toMatchObject({ phase: "completed" });
    expect((await guest.verifyAtDest()).findings).toEqual([]);
    test.proxy.restore();
    await test.lab.startSource();
    expect(await test.lab.source.api.wait(id, 20_000)).toMatchObject({ phase: "completed" });
  });

  it("when the dest has lost its journal: neither side guesses", async () => {
    const guest = await test.boot();
    const id = await untilToken(test, guest);
    await test.lab.dest.kill();
    await rm(join(test.lab.directory, "d", "journals"), { recursive: true });
    test.proxy.restore();
    await test.lab.startDest();
    expect(await guest.atDest()).toMatchObject({ state: "in-doubt" });
    await guest.inPhase(id, "in-doubt", 30_000);
    await expectSilentAtSource(guest);
    const [lost] = (await test.lab.dest.api.migrations()).filter(
      (migration) => migration.guest === guest.name,
    );
    expect(lost).toMatchObject({ phase: "in-doubt", error: { code: "in-doubt" } });
    await test.lab.dest.api.resolve(lost!.id, "source");
    await expectNothingAtDest(guest);
    await test.lab.source.api.resolve(id, "source");
    await test.lab.source.api.wait(id, 20_000);
    await expectWorksAtSource(guest, performance.now());
    await expectNothingAtDest(guest);
  });

  it("when the source has lost its journal: the guest stands still until somebody says whose it is", async () => {
    const guest = await test.boot();
    const id = await untilToken(test, guest);
    await Promise.all([test.lab.source.kill(), test.lab.dest.kill()]);
    await rm(join(test.lab.directory, "s", "journals"), { recursive: true });
    test.proxy.restore();
    await test.lab.startSource();
    expect(await guest.atSource()).toMatchObject({ state: "in-doubt" });
    await expectSilentAtSource(guest);
    const [lost] = await test.lab.source.api.migrations();
    expect(lost).toMatchObject({ guest: guest.name, phase: "in-doubt" });
    await test.lab.startDest();
    await test.lab.dest.api.resolve(id, "source");
    await expectNothingAtDest(guest);
    await test.lab.source.api.resolve(lost!.id, "source");
    await expectWorksAtSource(guest, performance.now());
    await expectMoves(guest);
  });

  it("is told where nothing is in doubt, and what is missing", async () => {
    const guest = await test.boot();
    const id = await guest.migrate(LONG_PRE_COPY);
    await guest.inPhase(id, "pre-copy");
    for (const agent of [test.lab.source, test.lab.dest]) {
      await expect(agent.api.resolve(id, "source")).rejects.toSatisfy(refusedWith("not-in-doubt"));
    }
    const unfenced = { owner: "source", fenced: false };
    const path = `/v1/migrations/${id}/resolve`;
    await expect(test.lab.source.api.request("POST", path, unfenced)).rejects.toMatchObject({
      detail: { problem: { status: 400, errors: [{ field: "fenced", detail: "must be true" }] } },
    });
    await test.lab.source.api.cancel(id);
    await test.lab.source.api.wait(id, 20_000);
    await expect(test.lab.source.api.resolve(id, "dest")).rejects.toSatisfy(
      refusedWith("not-in-doubt"),
    );
  });
});

describe("a person at the monitor of a guest that was handed over", () => {
  const directory = mkdtempSync(join(tmpdir(), "vmferry-monitor-"));
  const test = useProxiedLab({
    source: { environment: { VMFERRY_QEMU: join(directory, "probed-qemu") } },
  });
  beforeAll(async () => {
    await writeProbedQemu(directory);
  });
  afterAll(async () => {
    await rm(directory, { recursive: true });
  });

  it("types cont: it is stopped again, and the dest gets a guest that knows nothing of it", async () => {
    await test.lab.makeDisk("typed.raw", 64 * 1024 * 1024, { fill: 0.5 });
    const guest = await test.boot({
      workload: { diskrate: "500", diskthreads: "2" },
      disks: [{ id: "disk0", image: "typed.raw" }],
    });
    const id = await untilToken(test, guest);
    const { pid } = await guest.atSource();
    const runs = await typeCont(directory, pid!);
    await expect.poll(runs, { timeout: 30_000 }).toBe(false);
    await expect
      .poll(() => test.lab.source.logText, { timeout: 10_000 })
      .toContain("a guest that was handed over was started by hand");
    await expectSilentAtSource(guest);
    test.proxy.restore();
    expect(await test.lab.source.api.wait(id, 60_000)).toMatchObject({ phase: "completed" });
    const { findings } = await guest.verifyAtDest();
    // What it wrote to its console meanwhile it writes again, where it belongs.
    expect(findings.filter(({ code }) => code !== "sign-repeated")).toEqual([]);
  });

  it("types cont, and QEMU does not get back a disk that follows the guest", async () => {
    await test.lab.makeDisk("followed.raw", 512 * 1024 * 1024, { fill: 0.5 });
    const guest = await test.boot({
      workload: { diskrate: "100", disksweep: "8" },
      disks: [{ id: "disk0", image: "followed.raw" }],
    });
    const held = test.proxy.hold(controlOf("token"));
    const limits = { bandwidthBytesPerSecond: 16 * 1024 * 1024 };
    const id = await guest.migrate({ disk: { handover: "lazy" }, limits });
    await held;
    const { pid } = await guest.atSource();
    await expect(typeCont(directory, pid!)).rejects.toThrow('Failed to get "write" lock');
    test.proxy.restore();
    await guest.inPhase(id, "post-copy");
    await expect(typeCont(directory, pid!)).rejects.toThrow('Failed to get "write" lock');
    await expectSilentAtSource(guest);
    await guest.limitBandwidth(id, null);
    expect(await test.lab.source.api.wait(id, 60_000)).toMatchObject({ phase: "completed" });
    expect((await guest.verifyAtDest()).findings).toEqual([]);
  });

  it("types cont while the source's agent is dead: nothing is served of a disk that was written to", async () => {
    await test.lab.makeDisk("written.raw", 512 * 1024 * 1024, { fill: 0.5 });
    const guest = await test.boot({
      workload: { diskrate: "100", disksweep: "8" },
      disks: [{ id: "disk0", image: "written.raw" }],
    });
    const limits = { bandwidthBytesPerSecond: 16 * 1024 * 1024 };
    const id = await guest.migrate({ disk: { handover: "lazy" }, limits });
    await guest.inPhase(id, "post-copy");
    const { pid } = await guest.atSource();
    await test.lab.source.kill();
    const runs = await typeCont(directory, pid!);
    expect(await runs()).toBe(true);
    await test.lab.startSource();
    await expect.poll(runs, { timeout: 30_000 }).toBe(false);
    await guest.inPhase(id, "in-doubt", 30_000);
    expect((await test.lab.source.api.migration(id)).error?.detail).toContain(
      "no disk of it is served",
    );
    const missing = async (): Promise<number | null> => {
      const [disk] = (await test.lab.dest.api.migration(id)).disks;
      return disk!.remainingBytes;
    };
    const before = await missing();
    expect(before).toBeGreaterThan(0);
    await pause(3000);
    expect(await missing()).toBe(before);
  });
});

describe("a witness on a shared directory", () => {
  const shared = mkdtempSync(join(tmpdir(), "vmferry-shared-"));
  const flags = ["--shared-dir", shared];
  const test = useProxiedLab({ source: { flags }, dest: { flags } });
  afterAll(async () => {
    await rm(shared, { recursive: true });
  });

  it("costs an ordinary move nothing but a decision that stays", async () => {
    const guest = await test.boot();
    const { id } = await expectMoves(guest);
    const names = await readdir(join(shared, "vmferry-witness"));
    expect(names.filter((name) => name.includes(id))).toHaveLength(1);
    await expect(access(join(shared, "vmferry-witness", `${id}.proof`))).rejects.toThrow();
  });

  it("gives the guest back when the dest is gone before it took it", async () => {
    const guest = await test.boot();
    const id = await untilToken(test, guest);
    await killDestHost(test, guest);
    test.proxy.restore();
    const migration = await test.lab.source.api.wait(id, 60_000);
    expect(migration).toMatchObject({ phase: "failed", error: { code: "settled-by-witness" } });
    await expectWorksAtSource(guest, performance.now());
    await test.lab.startDest();
    await expectNothingAtDest(guest);
    await expectMoves(guest);
  });

  it("keeps a dest that comes back too late from taking what the source took back", async () => {
    const guest = await test.boot();
    const id = await untilToken(test, guest);
    await test.lab.dest.kill();
    test.proxy.restore();
    await test.lab.source.api.wait(id, 60_000);
    await test.lab.startDest();
    await expectWorksAtSource(guest, performance.now());
    await expect(test.lab.dest.api.resolve(id, "dest")).rejects.toThrow();
    await expectNothingAtDest(guest);
    await expectMoves(guest);
  });

  it("leaves the guest with a dest that took it and is silent", async () => {
    const guest = await test.boot();
    const held = test.proxy.hold(controlOf("taken"));
    const id = await guest.migrate();
    await held;
    await test.lab.dest.kill();
    test.proxy.cut();
    await guest.inPhase(id, "in-doubt", 30_000);
    await expect
      .poll(() => test.lab.source.logText.includes('"word":"taken"'), { timeout: 40_000 })
      .toBe(true);
    await expectSilentAtSource(guest);
    test.proxy.restore();
    await test.lab.startDest();
    expect(await test.lab.source.api.wait(id, 20_000)).toMatchObject({ phase: "completed" });
    expect((await guest.verifyAtDest()).findings).toEqual([]);
  });
});
