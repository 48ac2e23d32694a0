import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chooseAccelerator, probeKvmSupport, processorOffersKvm } from "./accelerator.ts";

const NOTHING = { deviceOpens: false, processorOffers: false };
const DEVICE_ALONE = { deviceOpens: true, processorOffers: false };
const PROCESSOR_ALONE = { deviceOpens: false, processorOffers: true };
const BOTH = { deviceOpens: true, processorOffers: true };

describe("chooseAccelerator", () => {
  it("takes KVM only where the device opens and the processor offers it", () => {
    expect(chooseAccelerator("auto", BOTH)).toBe("kvm");
    for (const support of [NOTHING, DEVICE_ALONE, PROCESSOR_ALONE]) {
      expect(chooseAccelerator("auto", support)).toBe("tcg");
    }
  });

  it("takes TCG where that was asked for", () => {
    expect(chooseAccelerator("tcg", BOTH)).toBe("tcg");
  });

  it("refuses KVM by name where it is not to be had", () => {
    expect(chooseAccelerator("kvm", BOTH)).toBe("kvm");
    for (const support of [NOTHING, DEVICE_ALONE, PROCESSOR_ALONE]) {
      expect(() => chooseAccelerator("kvm", support)).toThrow(
        expect.objectContaining({ code: "kvm-not-available" }),
      );
    }
  });
});

describe("processorOffersKvm", () => {
  it("finds vmx or svm as a flag, and not in another word or line", () => {
    expect(processorOffersKvm("model name\t: x\nflags\t\t: fpu vmx ssse3\n")).toBe(true);
    expect(processorOffersKvm("flags\t\t: fpu sse svm\n")).toBe(true);
    expect(processorOffersKvm("flags\t\t: svm\n")).toBe(true);
    expect(processorOffersKvm("flags\t\t: fpu svm_lock avmx vmxoff\n")).toBe(false);
    expect(processorOffersKvm("vmx flags\t: vnmi ept\nmodel name\t: svm\n")).toBe(false);
    expect(processorOffersKvm("")).toBe(false);
  });
});

describe("probeKvmSupport", () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "kvm-"));
    await writeFile(join(directory, "kvm"), "");
    await writeFile(join(directory, "cpuinfo"), "flags\t\t: fpu svm\n");
  });
  afterAll(() => rm(directory, { recursive: true }));

  it("looks at the device and at the processor", async () => {
    const paths = { device: join(directory, "kvm"), cpuinfo: join(directory, "cpuinfo") };
    expect(await probeKvmSupport(paths)).toEqual(BOTH);
    const absent = join(directory, "absent");
    expect(await probeKvmSupport({ ...paths, device: absent })).toEqual(PROCESSOR_ALONE);
    expect(await probeKvmSupport({ ...paths, cpuinfo: absent })).toEqual(DEVICE_ALONE);
  });
});
