import { open, mkdtemp, rm, type FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { punchHole, seekData, seekHole, setOfdLock, zeroOutOnDevice } from "./libc.ts";

let directory: string;
let handle: FileHandle;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "libc-"));
  handle = await open(join(directory, "file"), "w+");
  await handle.truncate(2 ** 20);
  await handle.write(Buffer.alloc(65_536, 1), 0, 65_536, 524_288);
});
afterAll(async () => {
  await handle.close();
  await rm(directory, { recursive: true });
});

describe("the system calls", () => {
  it("find data and holes, and tell the end of the data from a failure", async () => {
    expect(await seekData(handle.fd, 0)).toBe(524_288);
    expect(await seekHole(handle.fd, 524_288)).toBe(589_824);
    expect(await seekData(handle.fd, 600_000)).toBeNull();
    expect(await seekHole(handle.fd, 2 ** 21)).toBeNull();
    await expect(seekData(-1, 0)).rejects.toMatchObject({ code: "EBADF" });
  });

  it("take offsets beyond 4 GiB", async () => {
    const far = await open(join(directory, "far"), "w+");
    await far.truncate(2 ** 40);
    await far.write(Buffer.of(1), 0, 1, 2 ** 39);
    expect(await seekData(far.fd, 2 ** 33)).toBe(2 ** 39);
    await punchHole(far.fd, { offset: 2 ** 39, length: 65_536 });
    expect(await seekData(far.fd, 0)).toBeNull();
    await far.close();
  });

  it("reject as node:fs does", async () => {
    await expect(punchHole(handle.fd, { offset: 0, length: 0 })).rejects.toMatchObject({
      code: "EINVAL",
      errno: -22,
      syscall: "fallocate",
      message: "EINVAL: invalid argument, fallocate",
    });
    await expect(zeroOutOnDevice(handle.fd, { offset: 0, length: 512 })).rejects.toMatchObject({
      code: "ENOTTY",
      syscall: "ioctl",
    });
    await expect(setOfdLock(-1, "read", { offset: 0, length: 1 })).rejects.toMatchObject({
      code: "EBADF",
      syscall: "fcntl",
    });
  });

  it("give each of many calls at once its own outcome", async () => {
    const outcomes = await Promise.all(
      Array.from({ length: 2000 }, async (_, index): Promise<boolean> => {
        if (index % 3 === 0) return (await seekData(handle.fd, 0)) === 524_288;
        if (index % 3 === 1) return (await seekData(handle.fd, 600_000)) === null;
        const failure: unknown = await punchHole(-1, { offset: 0, length: 1 }).catch(
          (error: unknown) => error,
        );
        return (failure as NodeJS.ErrnoException).code === "EBADF";
      }),
    );
    expect(outcomes.every(Boolean)).toBe(true);
  });
});
