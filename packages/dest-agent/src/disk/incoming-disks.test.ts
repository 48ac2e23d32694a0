/** Images that somebody else has made, and a process that has them open, as a prepared QEMU has. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, open, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { PartialMark } from "@vmferry/block";
import { systemClock as clock } from "@vmferry/core";
import type { GuestDisk } from "@vmferry/protocol";
import { IncomingDisks, type IncomingDisksOptions } from "./incoming-disks.ts";

const SIZE = 8 * 1024 * 1024;
const MIGRATION_ID = "9f0c1e5a-3b7d-4c2e-8a61-5d4f3e2b1a09";
let imageDir: string;
let path: string;
let qemu: ChildProcess;

beforeEach(async () => {
  imageDir = await mkdtemp(join(tmpdir(), "vmferry-incoming-"));
  path = join(imageDir, "a.raw");
  await makeImage();
  const image = await open(path, "r+");
  qemu = spawn("sleep", ["60"], { stdio: [image.fd, "ignore", "ignore"] });
  await once(qemu, "spawn");
  await image.close();
});

afterEach(async () => {
  vi.restoreAllMocks();
  const exited = once(qemu, "exit");
  qemu.kill("SIGKILL");
  await exited;
  await rm(imageDir, { recursive: true });
});

async function makeImage(): Promise<void> {
  await writeFile(path, "");
  await truncate(path, SIZE);
}

function prepare(mode: GuestDisk["mode"]): Promise<IncomingDisks> {
  const proof = mode === "shared" ? "secret" : null;
  const disk = { sizeBytes: SIZE, blockBytes: 65_536, dataBytes: 0, proof };
  const offer = { migrationId: MIGRATION_ID, epoch: 8, hashSeed: "00112233445566ff" };
  return IncomingDisks.prepare({
    definitions: [{ id: "disk0", image: "a.raw", format: "raw", mode }],
    offer: {
      ...offer,
      bulkConnections: 1,
      disks: [disk],
    } as unknown as IncomingDisksOptions["offer"],
    ...{ imageDir, preparedPid: qemu.pid!, compression: false, clock },
    onFailed: () => undefined,
  });
}

const seen = (): boolean[] => [existsSync(path), existsSync(`${path}.vmferry`)];

test("an image that a prepared QEMU has open is taken, and is as it was when no QEMU comes to it", async () => {
  const disks = await prepare("copy");
  expect(seen()).toEqual([true, true]);
  await disks.giveUp();
  expect(seen()).toEqual([true, false]);
  await (await prepare("copy")).discard();
  expect(seen()).toEqual([false, false]);
});

test.each(["copy", "scratch", "shared"] as const)(
  "a file that was put in the place of the image is not taken for it: %s",
  async (mode) => {
    await writeFile(`${path}.vmferry-proof-${MIGRATION_ID}`, "secret");
    await rm(path);
    await makeImage();
    await expect(prepare(mode)).rejects.toMatchObject({ code: "prepared-qemu-differs" });
    expect(seen()).toEqual([true, false]);
  },
);

test("an image of a prepared QEMU that cannot be marked as whole is given back", async () => {
  vi.spyOn(PartialMark.prototype, "complete").mockRejectedValue(new Error("no space"));
  await expect(prepare("scratch")).rejects.toThrow("no space");
  expect(seen()).toEqual([true, false]);
});
