// The checks of what is at the source, over real files.
import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { GuestDisk } from "@vmferry/protocol";
import { checkCpuModel } from "./check-cpu-model.ts";
import { checkDevices } from "./check-devices.ts";
import { checkDisks } from "./check-disks.ts";
import { checkSourceSpace } from "./check-source-space.ts";
import { measureDisks, type MeasuredDisk } from "./measure-disks.ts";
import { sampleGuest } from "./sample-preflight.ts";

const MIB = 1024 * 1024;
let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "source-checks-"));
});
afterEach(() => rm(directory, { recursive: true }));

function disk(image: string, rest: Partial<GuestDisk> = {}): GuestDisk {
  return { id: "disk0", image, format: "raw", mode: "copy", ...rest };
}

describe("cpu-model", () => {
  test.each(["host", "max", "max,+avx2"])("fails for %s, which is another one elsewhere", (cpu) => {
    expect(checkCpuModel(sampleGuest({ cpu }))).toMatchObject({
      status: "fail",
      hint: expect.stringContaining("qemu64") as string,
    });
  });

  test("passes for one that has a name", () => {
    expect(checkCpuModel(sampleGuest()).status).toBe("pass");
  });
});

describe("devices", () => {
  test("fails with QEMU's reasons", async () => {
    const blockedReasons = ["0000:00:04.0: VFIO migration is not supported"];
    expect(await checkDevices(sampleGuest({ blockedReasons }))).toMatchObject({
      status: "fail",
      detail: expect.stringContaining("VFIO migration is not supported") as string,
    });
  });

  test("passes where QEMU has none", async () => {
    expect((await checkDevices(sampleGuest())).status).toBe("pass");
  });
});

describe("disks", () => {
  test.each([
    ["an image that is gone", disk("gone.raw")],
    ["one outside the directory", disk("../elsewhere.raw")],
    ["half a sector", disk("odd.raw")],
    ["raw data that is called qcow2", disk("whole.raw", { format: "qcow2" })],
  ])("fail for %s, with the disk's name", async (_, definition) => {
    await writeFile(join(directory, "odd.raw"), Buffer.alloc(700));
    await writeFile(join(directory, "whole.raw"), Buffer.alloc(4096, 1));
    expect(await checkDisks(measureDisks([definition], directory))).toMatchObject({
      status: "fail",
      detail: expect.stringContaining("disk disk0") as string,
    });
  });

  test("are measured: what a copy takes is what is there of them", async () => {
    await writeFile(join(directory, "web1.raw"), Buffer.alloc(MIB, 1));
    await truncate(join(directory, "web1.raw"), 64 * MIB);
    const [copied, shared] = await measureDisks(
      [disk("web1.raw"), disk("web1.raw", { mode: "shared" })],
      directory,
    );
    expect(copied).toMatchObject({ sizeBytes: 64 * MIB });
    expect(copied!.dataBytes).toBeGreaterThanOrEqual(MIB);
    expect(copied!.dataBytes).toBeLessThan(4 * MIB);
    expect(shared).toMatchObject({ sizeBytes: 64 * MIB, dataBytes: 0 });
    expect((await checkDisks(Promise.resolve([copied!]))).status).toBe("pass");
  });

  test("are nothing to look at where there is none", async () => {
    expect((await checkDisks(measureDisks([], directory))).status).toBe("skip");
  });
});

describe("source-space", () => {
  /** More than any file system here has. */
  const HUGE_BYTES = 2 ** 60;
  const request = { mode: "auto", onStall: "throttle" } as const;

  beforeEach(() => mkdir(join(directory, "run")));

  function space(
    options: {
      readonly disks?: readonly MeasuredDisk[];
      readonly memoryBytes?: number;
      readonly request?: Parameters<typeof checkSourceSpace>[0]["request"];
    } = {},
  ): ReturnType<typeof checkSourceSpace> {
    return checkSourceSpace({
      ...{ memoryBytes: MIB, request, ...options },
      disks: Promise.resolve(options.disks ?? []),
      runDir: join(directory, "run"),
      memoryDir: join(directory, "memory"),
    });
  }

  function measured(dataBytes: number, format: GuestDisk["format"]): MeasuredDisk {
    return { definition: disk("a", { format }), path: "a", sizeBytes: 2 ** 60, dataBytes };
  }

  test("fails where a qcow2 image has no place for its mirror", async () => {
    expect(await space({ disks: [measured(HUGE_BYTES, "qcow2")] })).toMatchObject({
      status: "fail",
      detail: expect.stringContaining(`${HUGE_BYTES} bytes`) as string,
    });
  });

  test("a raw image takes none", async () => {
    expect((await space({ disks: [measured(HUGE_BYTES, "raw")] })).status).toBe("skip");
  });

  test("fails where post-copy was asked for and memory has no place", async () => {
    const postCopy = { mode: "post-copy", onStall: "throttle" } as const;
    expect((await space({ memoryBytes: HUGE_BYTES, request: postCopy })).status).toBe("fail");
    expect((await space({ request: postCopy })).status).toBe("pass");
  });

  test("warns where it may become necessary", async () => {
    const maybe = { mode: "auto", onStall: "post-copy" } as const;
    expect((await space({ memoryBytes: HUGE_BYTES, request: maybe })).status).toBe("warn");
    expect((await space({ memoryBytes: HUGE_BYTES })).status).toBe("skip");
  });
});
