import { afterEach, describe, expect, it } from "vitest";
import { MovingGuest } from "../moving-guest.ts";
import { expectArrives, expectWorksAtSource } from "../expect-guest.ts";
import { expectEqualDigests } from "../expect-disks.ts";
import { useLab } from "../test-lab.ts";
import { ForeignQemu, type ForeignQemuOptions } from "./foreign-qemu.ts";

const MIB = 1024 * 1024;
const DISK_ID = "libvirt-1-format";
const CMDLINE = "console=ttyS0 quiet panic=-1 vmferry.mem=32M vmferry.diskrate=200";

describe("a guest whose QEMU somebody else has started", () => {
  const test = useLab();
  const qemus: ForeignQemu[] = [];
  const guests: MovingGuest[] = [];
  let started = 0;

  afterEach(async () => {
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
});
