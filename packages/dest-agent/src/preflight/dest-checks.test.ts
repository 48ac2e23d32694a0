// Every check of the dest, over real files and a QEMU that a script plays.
import { link, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ProblemError } from "@vmferry/agent";
import { createImage } from "@vmferry/block";
import type { GuestDisk } from "@vmferry/protocol";
import { checkAccelerator } from "./check-accelerator.ts";
import { checkCpuFeatures } from "./check-cpu-features.ts";
import { checkDestSpace } from "./check-dest-space.ts";
import { checkGuestName } from "./check-guest-name.ts";
import { checkImages } from "./check-images.ts";
import { checkMachineType } from "./check-machine-type.ts";
import { checkMemory } from "./check-memory.ts";
import { checkSharedDirectory } from "./check-shared-directory.ts";
import { checkSharedImages } from "./check-shared-images.ts";
import { probedCpu, probedDisks, type ProbedDisk } from "./probed-guest.ts";
import { installQemu, sampleProbe } from "./sample-probe.ts";

const MIB = 1024 * 1024;
const PROOF = "9f".repeat(32);
let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "dest-checks-"));
});
afterEach(() => rm(directory, { recursive: true }));

function arriving(rest: Partial<GuestDisk & ProbedDisk["offered"]> = {}): ProbedDisk {
  const { id = "disk0", image = "web1.raw", format = "raw", mode = "copy" } = rest;
  const { sizeBytes = MIB, dataBytes = 4096, blockBytes = 65_536, proof = null } = rest;
  return {
    disk: { id, image, format, mode },
    offered: { sizeBytes, dataBytes, blockBytes, proof },
  };
}

describe("machine-type", () => {
  test("fails where QEMU does not know it, or is not there", async () => {
    const qemu = await installQemu(directory);
    expect((await checkMachineType(sampleProbe(), qemu)).status).toBe("pass");
    const newer = sampleProbe({ machine: "pc-q35-99.0" });
    expect(await checkMachineType(newer, qemu)).toMatchObject({
      status: "fail",
      detail: expect.stringContaining("pc-q35-99.0") as string,
    });
    expect((await checkMachineType(sampleProbe(), join(directory, "none"))).status).toBe("fail");
  });
});

describe("accelerator", () => {
  const without = (): Promise<{ deviceOpens: boolean; processorOffers: boolean }> =>
    Promise.resolve({ deviceOpens: false, processorOffers: true });

  test("fails for KVM where the device does not open", async () => {
    expect(await checkAccelerator({ accel: "kvm" }, without)).toMatchObject({
      status: "fail",
      hint: expect.stringContaining("/dev/kvm") as string,
    });
  });

  test("passes for TCG, which is everywhere, and for KVM where it is", async () => {
    expect((await checkAccelerator({ accel: "tcg" }, without)).status).toBe("pass");
    const both = { deviceOpens: true, processorOffers: true };
    const kvm = await checkAccelerator({ accel: "kvm" }, () => Promise.resolve(both));
    expect(kvm.status).toBe("pass");
  });
});

describe("cpu-features", () => {
  const cpuModels = new Map([
    ["qemu64", []],
    ["Denverton", ["sha-ni", "mpx"]],
  ]);

  test("fails for a model that QEMU does not know", () => {
    expect(checkCpuFeatures("Newest-v9", { cpuModels })).toMatchObject({
      status: "fail",
      detail: expect.stringContaining("Newest-v9") as string,
    });
  });

  test("fails with what the host lacks of it", () => {
    expect(checkCpuFeatures("Denverton", { cpuModels })).toMatchObject({
      status: "fail",
      detail: expect.stringContaining("sha-ni, mpx") as string,
    });
    expect(checkCpuFeatures("qemu64", { cpuModels }).status).toBe("pass");
  });

  test("is about the model, without what the definition adds", () => {
    expect(probedCpu(sampleProbe({ cpu: "Denverton,+avx" }))).toBe("Denverton");
    expect(probedCpu(sampleProbe())).toBe("qemu64");
  });
});

describe("guest-name and memory", () => {
  const refusing = {
    refuseName: (name: string): never => {
      throw new ProblemError(`There is a guest ${name}.`, { code: "dest-guest-exists" });
    },
    refuseMemory: ({ memoryBytes }: { readonly memoryBytes: number }): never => {
      throw new ProblemError(`${memoryBytes} are too many.`, { code: "dest-memory-insufficient" });
    },
  };
  const roomy = { refuseName: () => undefined, refuseMemory: () => undefined };

  test("fail by what the registry says to an offer", () => {
    expect(checkGuestName("web1", refusing)).toMatchObject({
      status: "fail",
      detail: "There is a guest web1.",
    });
    expect(checkMemory(sampleProbe(), refusing)).toMatchObject({
      status: "fail",
      detail: `${2 ** 29} are too many.`,
    });
  });

  test("pass where it says nothing", () => {
    expect(checkGuestName("web1", roomy).status).toBe("pass");
    expect(checkMemory(sampleProbe(), roomy).status).toBe("pass");
  });
});

describe("images", () => {
  const look = (disk: ProbedDisk): ReturnType<typeof checkImages> => checkImages([disk], directory);

  test("fail where somebody else's file is in the place", async () => {
    await writeFile(join(directory, "web1.raw"), "not ours");
    expect(await look(arriving())).toMatchObject({
      status: "fail",
      detail: expect.stringContaining("disk disk0") as string,
    });
    expect(await readdir(directory)).toEqual(["web1.raw"]);
  });

  test.each(["sub/web1.raw", "../web1.raw", "web1.raw.vmferry"])(
    "fail where there is no place: %s",
    async (image) => {
      expect((await look(arriving({ image }))).status).toBe("fail");
    },
  );

  test("pass where nothing is, and nothing is made", async () => {
    expect((await look(arriving())).status).toBe("pass");
    expect(await readdir(directory)).toEqual([]);
  });

  test("pass over a leftover, which stays as it is", async () => {
    const mark = { blockBytes: 65_536, migrationId: "m1", epoch: 1 };
    const place = { directory, name: "web1.raw", sizeBytes: MIB, needBytes: 0, mark };
    await (await createImage(place)).image.close();
    expect((await look(arriving())).status).toBe("pass");
    expect((await readdir(directory)).sort()).toEqual(["web1.raw", "web1.raw.vmferry"]);
    await link(join(directory, "web1.raw"), join(directory, "second"));
    expect((await look(arriving())).status).toBe("fail");
  });

  test("are those that would be made: a shared one has to be there", async () => {
    await writeFile(join(directory, "web1.raw"), "shared");
    expect((await look(arriving({ mode: "shared" }))).status).toBe("skip");
  });
});

describe("dest-space", () => {
  test("fails where all disks together do not fit", async () => {
    const disks = [arriving(), arriving({ id: "disk1", image: "b.raw", dataBytes: 2 ** 50 })];
    expect(await checkDestSpace(disks, directory)).toMatchObject({
      status: "fail",
      detail: expect.stringContaining(`${2 ** 50 + 4096} bytes`) as string,
    });
  });

  test("passes where they do, and is skipped where nothing is copied", async () => {
    expect((await checkDestSpace([arriving()], directory)).status).toBe("pass");
    const scratch = arriving({ mode: "scratch", dataBytes: 2 ** 50 });
    expect((await checkDestSpace([scratch], directory)).status).toBe("skip");
  });
});

describe("shared-images", () => {
  const shared = arriving({ mode: "shared", sizeBytes: 6, proof: PROOF });
  const look = (): ReturnType<typeof checkSharedImages> =>
    checkSharedImages([shared], { imageDir: directory, probeId: "p1" });

  test("fail where a file of the same name and size is another one", async () => {
    await writeFile(join(directory, "web1.raw"), "shared");
    expect(await look()).toMatchObject({
      status: "fail",
      hint: expect.stringContaining("same directory") as string,
    });
    await writeFile(join(directory, "web1.raw.vmferry-proof-p1"), "9e".repeat(32));
    expect((await look()).status).toBe("fail");
  });

  test("pass where the source's proof is beside it", async () => {
    await writeFile(join(directory, "web1.raw"), "shared");
    await writeFile(join(directory, "web1.raw.vmferry-proof-p1"), PROOF);
    expect((await look()).status).toBe("pass");
  });
});

describe("shared-directory", () => {
  const proven = { ...sampleProbe(), witness: PROOF };
  const sees = (answer: Promise<boolean>): { sees: () => Promise<boolean> } => ({
    sees: () => answer,
  });

  test("warns where it is another one, one that does not answer, or on one side only", async () => {
    const other = sees(Promise.resolve(false));
    const dead = sees(Promise.reject(new Error("no answer within 5000 ms")));
    for (const [probe, witness] of [
      [proven, other],
      [proven, dead],
      [proven, null],
      [sampleProbe(), other],
    ] as const) {
      expect(await checkSharedDirectory(probe, witness)).toMatchObject({
        status: "warn",
        hint: expect.stringContaining("VMFERRY_SHARED_DIR") as string,
      });
    }
  });

  test("passes where both see it, and is skipped where neither has one", async () => {
    const same = sees(Promise.resolve(true));
    expect((await checkSharedDirectory(proven, same)).status).toBe("pass");
    expect((await checkSharedDirectory(sampleProbe(), null)).status).toBe("skip");
  });
});

test("a probe that knows not of all disks is not judged by half of them", () => {
  const disk: GuestDisk = { id: "disk0", image: "web1.qcow2", format: "qcow2", mode: "copy" };
  const probe = sampleProbe({ disks: [{ ...disk }] });
  expect(() => probedDisks(probe)).toThrow("all disks");
  const { offered } = arriving();
  const [arrives] = probedDisks({ ...probe, disks: [offered] });
  expect(arrives!.disk).toMatchObject({ image: "web1.raw", format: "raw" });
});

test("directories are looked at and nothing else", async () => {
  await mkdir(join(directory, "web1.raw"));
  expect((await checkImages([arriving()], directory)).status).toBe("fail");
});
