import { mkdir, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { codeOf } from "@vmferry/core";
import type { ControlMessageOf, PreflightReport } from "@vmferry/protocol";
import { QmpClient } from "@vmferry/qemu";
import { ApiProblem, controlOf, type GuestConsole } from "@vmferry/testkit";
import { readProcStat } from "../../packages/qemu/src/guest/proc-stat.ts";
import { MovingGuest } from "../moving-guest.ts";
import { expectArrives, expectKept, expectWorksAtSource } from "../expect-guest.ts";
import { expectEqualDigests, expectNoImage } from "../expect-disks.ts";
import { useProxiedLab } from "../test-lab.ts";
import { ForeignQemu, type ForeignQemuOptions } from "./foreign-qemu.ts";
import { QmpRelay } from "./qmp-relay.ts";

const MIB = 1024 * 1024;
const DISK_ID = "libvirt-1-format";
const CMDLINE = "console=ttyS0 quiet panic=-1 vmferry.mem=32M vmferry.diskrate=200";

/** What no definition of the agents describes. */
const USB = ["-device", "qemu-xhci,id=usb,bus=pcie.0,addr=0x8", "-device", "usb-tablet,id=input0"];

describe("a guest whose QEMU somebody else has started", () => {
  const test = useProxiedLab();
  const qemus: ForeignQemu[] = [];
  const guests: MovingGuest[] = [];
  const relays: QmpRelay[] = [];
  let started = 0;

  afterEach(async () => {
    for (const relay of relays.splice(0)) await relay.end();
    for (const guest of guests.splice(0)) await guest.end();
    for (const qemu of qemus.splice(0)) await qemu.end();
  });

  /** With a disk and a workload on it. */
  const start = async (
    options: Partial<ForeignQemuOptions> = {},
  ): Promise<{ readonly qemu: ForeignQemu; readonly name: string; readonly image: string }> => {
    const name = `foreign${++started}`;
    const image = `${name}.raw`;
    const disk = await test.lab.makeDisk(image, 256 * MIB, { fill: 0.25 });
    const images = test.lab.imagePath("source");
    const all = { name, disk, images, cmdline: CMDLINE, ...options };
    const qemu = await ForeignQemu.start(test.lab, "source", all);
    qemus.push(qemu);
    return { qemu, name, image };
  };

  const working = async (
    qemu: ForeignQemu,
    name: string,
    dest?: ForeignQemu,
  ): Promise<MovingGuest> => {
    const source = test.lab.follow(qemu.serialLog);
    const about = { name, source, sourceDirectory: qemu.directory };
    const guest = await MovingGuest.attached(
      test.lab,
      dest === undefined ? about : { ...about, dest },
    );
    guests.push(guest);
    return guest;
  };

  const attach = (name: string, qemu: ForeignQemu, more = {}): ReturnType<typeof post> =>
    post({ name, attach: { qmp: qemu.qmp }, ...more });
  const post = (body: object): ReturnType<typeof test.lab.source.api.startGuest> =>
    test.lab.source.api.startGuest(body);

  const preflight = async (name: string, more = {}): Promise<Map<string, string>> => {
    const request = { guest: name, destination: "dest", ...more };
    const path = "/v1/migrations/preflight";
    const { checks } = await test.lab.source.api.request<PreflightReport>("POST", path, request);
    return new Map(checks.map(({ name: check, status }) => [check, status]));
  };

  /** By this check alone, by a preflight as by a start. Resolves with why. */
  const expectRefused = async (guest: MovingGuest, check: string, more = {}): Promise<string> => {
    const sinceMs = performance.now();
    const checks = await preflight(guest.name, more);
    expect([...checks].flatMap(([name, status]) => (status === "fail" ? [name] : []))).toEqual([
      check,
    ]);
    const error: unknown = await guest.migrate(more).catch((reason: unknown) => reason);
    if (!(error instanceof ApiProblem)) throw error;
    const { code, problem } = error.detail;
    expect(code).toBe("preflight-failed");
    expect(problem.errors?.map(({ field }) => field)).toEqual([check]);
    await expectWorksAtSource(guest, sinceMs);
    return problem.errors![0]!.detail;
  };

  it("is described by its QEMU, moves with its disk, and is launched by the dest", async () => {
    const { qemu, name, image } = await start();
    const guest = await working(qemu, name);
    const object = await attach(name, qemu, { cpu: "qemu64" });
    expect(object).toMatchObject({
      ...{ name, state: "running", pid: qemu.pid, machine: "pc-q35-10.0", accel: "tcg" },
      ...{ cpu: "qemu64", vcpus: 1, memoryBytes: 128 * MIB, serialLog: null },
      disks: [{ id: DISK_ID, image, format: "raw", mode: "copy", sizeBytes: 256 * MIB }],
      attached: { qmp: qemu.qmp, launchRefusal: "", postCopyRefusal: "" },
    });
    const migration = await expectArrives(guest, await guest.migrate());
    await expectEqualDigests(guest, migration, [DISK_ID]);
    expect(qemu.isRunning).toBe(false);
  });

  it("is found again by an agent that was killed, and let go of where it is no longer wanted", async () => {
    const { qemu, name } = await start();
    const guest = await working(qemu, name);
    const { epoch } = await attach(name, qemu, { cpu: "qemu64" });
    await test.lab.source.kill();
    await test.lab.startSource();
    expect(await guest.atSource()).toMatchObject({ state: "running", pid: qemu.pid, epoch });
    const sinceMs = performance.now();
    await test.lab.source.api.powerOff(name);
    await expect(guest.atSource()).rejects.toMatchObject({ code: "guest-not-found" });
    expect(qemu.isRunning).toBe(true);
    // Its monitor is free again.
    await attach(name, qemu, { cpu: "qemu64" });
    await expectWorksAtSource(guest, sinceMs);
    await expectArrives(guest, await guest.migrate());
  });

  it("is in doubt while its record cannot be read, and found again with it", async () => {
    const { qemu, name } = await start();
    const guest = await working(qemu, name);
    await attach(name, qemu, { cpu: "qemu64" });
    await test.lab.source.kill();
    const path = join(test.lab.directory, "s", "guests", name, "guest.json");
    const record = await readFile(path);
    await writeFile(path, record.subarray(0, 100));
    await test.lab.startSource();
    expect(await guest.atSource()).toMatchObject({ state: "in-doubt", pid: null });
    await expect(test.lab.source.api.powerOff(name)).rejects.toMatchObject({
      code: "guest-in-doubt",
      message: expect.stringContaining(path) as string,
    });
    await expect(attach(name, qemu)).rejects.toMatchObject({ code: "guest-exists" });
    expect(qemu.isRunning).toBe(true);
    await test.lab.source.kill();
    await writeFile(path, record);
    await test.lab.startSource();
    expect(await guest.atSource()).toMatchObject({ state: "running", pid: qemu.pid });
    await expectWorksAtSource(guest, performance.now());
  });

  it("whose devices no definition describes stays, where nobody has prepared a QEMU for it", async () => {
    const { qemu, name } = await start({ extra: USB });
    const guest = await working(qemu, name);
    const { attached } = await attach(name, qemu, { cpu: "qemu64" });
    expect(attached?.launchRefusal).toContain("usb-tablet");
    const detail = await expectRefused(guest, "prepared-qemu");
    expect(detail).toContain("usb-tablet");
    expect(detail).toContain("-incoming defer");
    // A dest of an older release does not look, and refuses the offer.
    void test.proxy.replace(
      (message) => message.direction === "to-source" && controlOf("hello")(message),
      (hello) => ({ ...(hello as ControlMessageOf<"hello">), features: ["zstd", "attached"] }),
    );
    const id = await guest.migrate();
    const sinceMs = performance.now();
    await expectKept(guest, id, { code: "dest-not-prepared", during: "preparing", sinceMs });
  });

  /** A QEMU at the dest, as somebody would start it: with an empty image. */
  const startWaiting = async (
    name: string,
    image: string,
    options: Partial<ForeignQemuOptions> = {},
  ): Promise<ForeignQemu> => {
    const disk = test.lab.imagePath("dest", image);
    await writeFile(disk, "");
    await truncate(disk, 256 * MIB);
    const images = test.lab.imagePath("dest");
    const all = { name, disk, images, cmdline: CMDLINE, incoming: true, extra: USB, ...options };
    const qemu = await ForeignQemu.start(test.lab, "dest", all);
    qemus.push(qemu);
    return qemu;
  };

  /** The same, and attached to. */
  const prepare = async (
    name: string,
    image: string,
    options: Partial<ForeignQemuOptions> = {},
  ): Promise<ForeignQemu> => {
    const qemu = await startWaiting(name, image, options);
    const object = await test.lab.dest.api.startGuest({ name, attach: { qmp: qemu.qmp } });
    expect(object).toMatchObject({ state: "incoming", epoch: 0, pid: qemu.pid });
    return qemu;
  };

  it("moves into a QEMU that somebody has prepared, though the dest agent was killed meanwhile", async () => {
    const { qemu, name, image } = await start({ extra: USB });
    const prepared = await prepare(name, image);
    await test.lab.dest.kill();
    await test.lab.startDest();
    const guest = await working(qemu, name, prepared);
    expect(await guest.atDest()).toMatchObject({ state: "incoming", pid: prepared.pid });
    await attach(name, qemu);
    const checks = await preflight(name);
    expect(checks.get("prepared-qemu")).toBe("pass");
    expect([...checks.values()]).not.toContain("fail");
    const migration = await expectArrives(guest, await guest.migrate());
    await expectEqualDigests(guest, migration, [DISK_ID]);
    expect(await guest.atDest()).toMatchObject({ pid: prepared.pid });
    expect(qemu.isRunning).toBe(false);
    // Let go of, it runs on.
    await test.lab.dest.api.powerOff(name);
    expect(prepared.isRunning).toBe(true);
  });

  it("stays where the prepared QEMU is another machine, and that one waits on", async () => {
    const { qemu, name, image } = await start({ extra: USB });
    const prepared = await prepare(name, image, { memoryMib: 256 });
    const guest = await working(qemu, name, prepared);
    await attach(name, qemu);
    const detail = await expectRefused(guest, "prepared-qemu");
    expect(detail).toContain("memoryBytes is 268435456 and has to be 134217728");
    expect(await guest.atDest()).toMatchObject({ state: "incoming", pid: prepared.pid });
  });

  it("keeps its migration settings where a migration of it is cancelled", async () => {
    const { qemu, name } = await start();
    const guest = await working(qemu, name);
    await attach(name, qemu, { cpu: "qemu64" });
    const id = await guest.migrate({ limits: { bandwidthBytesPerSecond: 4 * MIB } });
    await guest.inPhase(id, "disk-copy");
    const sinceMs = performance.now();
    await test.lab.source.api.cancel(id);
    await expectKept(guest, id, { code: "cancelled", during: "disk-copy", sinceMs });
    await test.lab.source.api.powerOff(name);
    const qmp = await QmpClient.connect({ path: qemu.qmp, timeoutMs: 5000 });
    const capabilities = await qmp.execute("query-migrate-capabilities");
    expect([...capabilities].filter(([, on]) => on)).toEqual([]);
    const nodes = await qmp.execute("query-named-block-nodes", { flat: true });
    await qmp.close();
    const names = nodes.map(({ nodeName }) => nodeName).toSorted();
    expect(names).toEqual(["libvirt-1-format", "libvirt-1-storage"]);
  });

  it("runs on, with its disk alone, where the agent is killed in the middle of a migration", async () => {
    const { qemu, name } = await start();
    const guest = await working(qemu, name);
    await attach(name, qemu, { cpu: "qemu64" });
    const id = await guest.migrate({ limits: { bandwidthBytesPerSecond: 4 * MIB } });
    await guest.inPhase(id, "disk-copy");
    const sinceMs = performance.now();
    await test.lab.source.kill();
    await test.lab.startSource();
    await expectWorksAtSource(guest, sinceMs);
    await expect
      .poll(() => guest.migrate().catch((error: unknown) => codeOf(error)), { timeout: 20_000 })
      .not.toBe("migration-active");
    const [latest] = await test.lab.source.api.migrations();
    await expectArrives(guest, latest!.id);
  });

  it("stays where an attempt fails, which ends the prepared QEMU with its image", async () => {
    const { qemu, name, image } = await start({ extra: USB });
    const prepared = await prepare(name, image);
    const guest = await working(qemu, name, prepared);
    await attach(name, qemu);
    const id = await guest.migrate({ limits: { bandwidthBytesPerSecond: 4 * MIB } });
    await guest.inPhase(id, "disk-copy");
    const sinceMs = performance.now();
    await test.lab.source.api.cancel(id);
    await expectKept(guest, id, { code: "cancelled", during: "disk-copy", sinceMs });
    await expect.poll(() => prepared.isRunning).toBe(false);
    expectNoImage(test.lab.imagePath("dest", image));
  });

  it("does not come by post-copy into a QEMU that was prepared, and says why", async () => {
    const { qemu, name, image } = await start({ extra: USB });
    const prepared = await prepare(name, image);
    const guest = await working(qemu, name, prepared);
    await attach(name, qemu);
    const detail = await expectRefused(guest, "post-copy", { mode: "post-copy" });
    expect(detail).toContain("while it waits for a page");
  });

  it("is not attached to where its monitor is taken, or it is this agent's already", async () => {
    const { qemu, name } = await start();
    const other = await QmpClient.connect({ path: qemu.qmp, timeoutMs: 5000 });
    await expect(attach(name, qemu)).rejects.toMatchObject({ code: "monitor-not-usable" });
    await other.close();
    await expect(attach("another", qemu)).rejects.toMatchObject({ code: "guest-not-attachable" });
    await expect(
      test.lab.dest.api.startGuest({ name, attach: { qmp: qemu.qmp } }),
    ).rejects.toMatchObject({ code: "guest-not-attachable" });
    await attach(name, qemu);
    await expect(attach(name, qemu)).rejects.toMatchObject({ code: "guest-exists" });
    await expect(attach("another", qemu)).rejects.toMatchObject({ code: "guest-attached" });
    await test.lab.source.api.powerOff(name);
    expect(qemu.isRunning).toBe(true);
  });

  const relayTo = async (qemu: ForeignQemu): Promise<QmpRelay> => {
    const relay = await QmpRelay.start(`${qemu.qmp}.relay`, qemu.qmp);
    relays.push(relay);
    return relay;
  };
  /** That of the process which is told, so that whoever reads it sees what was meant. */
  const refusalOf = (relay: QmpRelay): object => ({
    code: "monitor-not-usable",
    message: expect.stringMatching(
      new RegExp(`process ${relay.pid} \\(.+\\).* give the path of QEMU's own socket`),
    ) as string,
  });

  it("is not attached to by way of another program, and is by its own socket", async () => {
    const { qemu, name } = await start();
    const relay = await relayTo(qemu);
    await expect(
      test.lab.source.api.startGuest({ name, attach: { qmp: relay.path } }),
    ).rejects.toMatchObject(refusalOf(relay));
    expect([relay.isRunning, qemu.isRunning]).toEqual([true, true]);
    expect(await attach(name, qemu)).toMatchObject({ state: "running", pid: qemu.pid });
  });

  /** Killed; what is done meanwhile is done to no agent. */
  const restartSource = async (meanwhile: () => Promise<void>): Promise<void> => {
    await test.lab.source.kill();
    await meanwhile();
    await test.lab.startSource();
  };

  /** Nothing is done with it, and a person is told why. */
  const expectInDoubt = async (guest: MovingGuest, pid: number, why: string): Promise<void> => {
    expect(await guest.atSource()).toMatchObject({ state: "in-doubt", pid });
    await expect(test.lab.source.api.powerOff(guest.name)).rejects.toMatchObject({
      code: "guest-in-doubt",
      message: expect.stringContaining(why) as string,
    });
    await expect(guest.migrate()).rejects.toMatchObject({ code: "guest-in-doubt" });
  };

  it("is in doubt while its path leads to another program, and found again when to its QEMU", async () => {
    const { qemu, name } = await start();
    const guest = await working(qemu, name);
    const path = join(qemu.directory, "link", basename(qemu.qmp));
    await mkdir(dirname(path));
    await symlink(qemu.qmp, path);
    const request = { name, attach: { qmp: path }, cpu: "qemu64" };
    const { pid, epoch } = await test.lab.source.api.startGuest(request);
    const sinceMs = performance.now();
    await restartSource(async () => {
      await rm(path);
      relays.push(await QmpRelay.start(path, qemu.qmp));
    });
    const [relay] = relays;
    const why = `process ${relay!.pid} serves it, and the guest's QEMU (pid ${pid}) lives`;
    await expectInDoubt(guest, pid!, why);
    expect([relay!.isRunning, qemu.isRunning]).toEqual([true, true]);
    await relay!.end();
    await rm(path);
    await symlink(qemu.qmp, path);
    await expect
      .poll(() => guest.atSource(), { timeout: 20_000 })
      .toMatchObject({ state: "running", pid, epoch });
    await expectWorksAtSource(guest, sinceMs);
    await expectArrives(guest, await guest.migrate());
  });

  it("is in doubt where an earlier agent took another program for its QEMU, and runs on", async () => {
    const { qemu, name } = await start();
    const guest = await working(qemu, name);
    await attach(name, qemu, { cpu: "qemu64" });
    const path = join(test.lab.directory, "s", "guests", name, "guest.json");
    const relay = await relayTo(qemu);
    await restartSource(async () => {
      const record = JSON.parse(await readFile(path, "utf8")) as Record<string, object>;
      const { startTicks } = readProcStat(relay.pid)!;
      const identity = { pid: relay.pid, startTicks, qmpPath: relay.path };
      const attachment = { ...record["attachment"], qmp: relay.path };
      await writeFile(path, JSON.stringify({ ...record, identity, attachment }));
    });
    await expectInDoubt(guest, relay.pid, "is not the QEMU that answers");
    expect([relay.isRunning, qemu.isRunning]).toEqual([true, true]);
    const { sequence } = guest.source.latestSign!;
    const worksOn = ({ latestSign }: GuestConsole): boolean => latestSign!.sequence > sequence + 20;
    await guest.source.waitFor(worksOn, { timeoutMs: 20_000 });
  });

  it("is not waited for by a QEMU that was prepared behind another program", async () => {
    const { name, image } = await start({ extra: USB });
    const waiting = await startWaiting(name, image);
    const relay = await relayTo(waiting);
    await expect(
      test.lab.dest.api.startGuest({ name, attach: { qmp: relay.path } }),
    ).rejects.toMatchObject(refusalOf(relay));
    expect(
      await test.lab.dest.api.startGuest({ name, attach: { qmp: waiting.qmp } }),
    ).toMatchObject({ state: "incoming", pid: waiting.pid });
  });
});
