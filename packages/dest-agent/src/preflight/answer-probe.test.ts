import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ManualClock, ProblemError, type Guest } from "@vmferry/agent";
import { systemClock } from "@vmferry/core";
import { decodeControl, encodeControl, type ControlMessageOf } from "@vmferry/protocol";
import { definitionOf } from "../session/offer-check.ts";
import { answerProbe, type ProbePorts } from "./answer-probe.ts";
import { installQemu, sampleProbe } from "./sample-probe.ts";

type Result = ControlMessageOf<"probe-result">;

const ROOMY: ProbePorts["registry"] = {
  isArriving: () => false,
  prepared: () => null,
  refuseName: () => undefined,
  refuseMemory: () => undefined,
};

let directory: string;
let qemu: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "answer-probe-"));
  qemu = await installQemu(directory);
});
afterEach(() => rm(directory, { recursive: true }));

function answer(ports: Partial<ProbePorts> = {}, probe = sampleProbe()): Promise<Result> {
  const common = {
    ...{ registry: ROOMY, earlier: { isOpen: false }, witness: null },
    ...{ qemu, imageDir: directory, clock: systemClock },
  };
  return answerProbe({ ...common, ...ports }, probe);
}

function statusOf({ checks }: Result, name: string): string | undefined {
  return checks.find((check) => check.name === name)?.status;
}

test("everything is looked at, and nothing is made", async () => {
  const result = await answer();
  expect(result.checks.map(({ name }) => name)).toEqual([
    ...["machine-type", "accelerator", "cpu-features", "prepared-qemu", "guest-name"],
    ...["memory", "dest-space", "images", "shared-images", "shared-directory"],
  ]);
  expect(result.checks.filter(({ status }) => status === "fail")).toEqual([]);
  expect(result).toMatchObject({
    qemuVersion: "10.0.2",
    postCopyRefusal: "Userfaultfd not available",
  });
  expect(await readdir(directory)).toEqual(["qemu"]);
});

test("QEMU is asked about the guest's own CPU model", async () => {
  const result = await answer({}, sampleProbe({ cpu: "Denverton" }));
  expect(statusOf(result, "cpu-features")).toBe("fail");
});

test("a QEMU that is not there fails what depends on it, and the rest is told", async () => {
  const result = await answer({ qemu: join(directory, "none") });
  expect(result.qemuVersion).toBe("");
  expect(result.postCopyRefusal).not.toBe("");
  expect(statusOf(result, "machine-type")).toBe("fail");
  expect(statusOf(result, "memory")).toBe("pass");
});

test("a share that does not answer holds nothing up for longer than the source waits", async () => {
  const clock = new ManualClock();
  const witness = { sees: () => new Promise<boolean>(() => undefined) };
  const answering = answer({ clock, witness }, { ...sampleProbe(), witness: "3c".repeat(32) });
  // The other checks come to their ends meanwhile, by themselves.
  while (clock.timerCount !== 1) await new Promise((resolve) => setTimeout(resolve, 5));
  clock.advance(4999);
  expect(statusOf(await answering, "shared-directory")).toBe("warn");
});

test("texts that are too long are cut, so that the answer arrives", async () => {
  const refuseName = (): never => {
    throw new ProblemError("😀".repeat(1000), { code: "dest-guest-exists" });
  };
  const result = await answer({ registry: { ...ROOMY, refuseName } });
  expect(statusOf(result, "guest-name")).toBe("fail");
  expect(decodeControl(encodeControl(result))).toEqual(result);
});

test("an earlier attempt of the guest, which gives way to the next, stands in no way", async () => {
  const refuse = (): never => {
    throw new ProblemError("There is a guest web1.", { code: "dest-guest-exists" });
  };
  const isArriving = (): boolean => true;
  const registry = { ...ROOMY, isArriving, refuseName: refuse, refuseMemory: refuse };
  const result = await answer({ registry });
  for (const name of ["guest-name", "memory", "dest-space", "images"]) {
    expect(statusOf(result, name), name).toBe("skip");
  }
  const leaving = { registry: { ...registry, isArriving: () => false }, earlier: { isOpen: true } };
  expect(statusOf(await answer(leaving), "images")).toBe("skip");
  const other = await answer({ registry: { ...registry, isArriving: () => false } });
  expect(statusOf(other, "guest-name")).toBe("fail");
});

const launchRefusal = "it has a usb-tablet (input0)";

test("a guest that no QEMU can be launched for needs one that was prepared", async () => {
  const { checks } = await answer({}, { ...sampleProbe(), launchRefusal });
  expect(checks.find(({ name }) => name === "prepared-qemu")).toMatchObject({
    status: "fail",
    detail: expect.stringContaining(launchRefusal) as string,
    hint: expect.stringContaining("-incoming defer") as string,
  });
  expect(statusOf(await answer(), "prepared-qemu")).toBe("skip");
});

describe("a QEMU that was prepared", () => {
  const NO_POST_COPY = "it takes no commands meanwhile";
  const preparedWith = (memoryBytes: number): Partial<ProbePorts> => {
    const definition = { ...definitionOf(sampleProbe()), memoryBytes };
    const attachment = { qmp: "/run/q.sock", launchRefusal, diskBytes: {} };
    const attached = { qmp: "/run/q.sock", launchRefusal, postCopyRefusal: NO_POST_COPY };
    const guest = { definition, attachment, process: { pid: 4711 }, object: { attached } };
    const refuseName = (): never => {
      throw new ProblemError("There is a guest web1.", { code: "dest-guest-exists" });
    };
    const prepared = (): Guest => guest as unknown as Guest;
    const registry = { ...ROOMY, isArriving: () => true, refuseName, prepared };
    // What would be launched is not asked about.
    return { registry, qemu: join(directory, "none") };
  };

  test("is compared with the guest, in the place of what would be launched", async () => {
    const result = await answer(preparedWith(2 ** 29), { ...sampleProbe(), launchRefusal });
    expect(statusOf(result, "prepared-qemu")).toBe("pass");
    for (const name of ["machine-type", "accelerator", "guest-name", "memory", "images"]) {
      expect(statusOf(result, name), name).toBe("skip");
    }
    expect(result.postCopyRefusal).toBe(NO_POST_COPY);
  });

  test("fails with what differs", async () => {
    const { checks } = await answer(preparedWith(2 ** 28), { ...sampleProbe(), launchRefusal });
    expect(checks.find(({ name }) => name === "prepared-qemu")).toMatchObject({
      status: "fail",
      detail: expect.stringContaining("memoryBytes is 268435456") as string,
    });
  });
});
