import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, open, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger } from "@vmferry/agent";
import { systemClock as clock } from "@vmferry/core";
import { openReception, type ReceptionOptions, type ReceptionPorts } from "./reception.ts";

const SIZE = 8 * 1024 * 1024;
const MIGRATION_ID = "9f0c1e5a-3b7d-4c2e-8a61-5d4f3e2b1a09";
const disks = [{ id: "disk0", image: "a.raw", format: "raw", mode: "copy" }];
const definition = {
  ...{ name: "web1", machine: "pc-q35-10.0", accel: "tcg", cpu: "qemu64", vcpus: 1 },
  ...{ memoryBytes: 2 ** 27, serial: "file", disks },
};
const offer = {
  ...{ kind: "offer", migrationId: MIGRATION_ID, epoch: 8, guest: definition, accel: "tcg" },
  ...{ uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8", qemuVersion: "10.0.2", bulkConnections: 1 },
  disks: [{ sizeBytes: SIZE, blockBytes: 65_536, dataBytes: 0, proof: null }],
  ...{ hashSeed: "00112233445566ff", incarnation: "s1", postCopy: false, witness: null },
};
let imageDir: string;
let path: string;
let qemu: ChildProcess;

beforeEach(async () => {
  imageDir = await mkdtemp(join(tmpdir(), "vmferry-reception-"));
  path = join(imageDir, "a.raw");
  await writeFile(path, "");
  await truncate(path, SIZE);
  const image = await open(path, "r+");
  qemu = spawn("sleep", ["60"], { stdio: [image.fd, "ignore", "ignore"] });
  await once(qemu, "spawn");
  await image.close();
});

afterEach(async () => {
  const exited = once(qemu, "exit");
  qemu.kill("SIGKILL");
  await exited;
  await rm(imageDir, { recursive: true });
});

test("a prepared QEMU that cannot be written down as taken waits on, over the image that it has", async () => {
  const prepared = {
    ...{ definition, process: { pid: qemu.pid }, busyWith: null as string | null },
    attachment: { qmp: "/run/q.sock", launchRefusal: "", diskBytes: { disk0: SIZE } },
  };
  const registry = {
    prepared: () => prepared,
    takePrepared: () => {
      expect(prepared.busyWith).toBe(offer.migrationId);
      expect(existsSync(`${path}.vmferry`)).toBe(true);
      return Promise.reject(new Error("no space is left"));
    },
  };
  const logger = createLogger({ role: "dest", level: "silent" });
  const ports = { registry, clock, logger, imageDir, qemu: "qemu", runDir: imageDir };
  const options = { offer, agreement: { features: new Set() } };
  const opened = openReception(
    ports as unknown as ReceptionPorts,
    options as unknown as ReceptionOptions,
  );
  await expect(opened).rejects.toThrow("no space is left");
  expect([existsSync(path), existsSync(`${path}.vmferry`)]).toEqual([true, false]);
  expect(prepared.busyWith).toBe(null);
});
