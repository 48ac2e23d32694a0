import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger } from "@vmferry/agent";
import { HeldSockets, ImageFile } from "@vmferry/block";
import type { QmpClient } from "@vmferry/qemu";
import { DiskInterposer } from "./disk-interposer.ts";
import { exportNotePath, readExportNote } from "./export-note.ts";

let directory: string;
let notePath: string;
let socketPath: string;
let sockets: HeldSockets;
let device: ImageFile;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-interposer-"));
  notePath = exportNotePath(directory, "disk0");
  socketPath = join(directory, "7b1e26d6-0.nbd");
  sockets = await HeldSockets.open({ directory, onTrouble: expect.unreachable });
  await writeFile(join(directory, "d.raw"), Buffer.alloc(4096));
  device = await ImageFile.open(join(directory, "d.raw"));
});

afterEach(async () => {
  await device.close();
  sockets.close();
  await rm(directory, { recursive: true });
});

async function entered(): Promise<DiskInterposer> {
  const qmp = { execute: () => Promise.resolve() } as unknown as QmpClient;
  const logger = createLogger({ role: "source", level: "silent" });
  const common = { qmp, diskId: "disk0", logger, socketPath, sockets, notePath };
  const interposer = new DiskInterposer(common);
  await interposer.enter(device);
  return interposer;
}

test("nothing is left of an export over an image that has stored everything", async () => {
  const interposer = await entered();
  expect(await readExportNote(notePath)).toEqual({ socketPath, isSuspect: false });
  await interposer.leave();
  expect(await readExportNote(notePath)).toBe(null);
});

test("of one whose flush has failed the note stays, for whoever would start the guest", async () => {
  const interposer = await entered();
  await Promise.all([interposer.suspected(), interposer.suspected()]);
  expect(await readExportNote(notePath)).toEqual({ socketPath, isSuspect: true });
  await interposer.leave();
  expect(await readExportNote(notePath)).toEqual({ socketPath: null, isSuspect: true });
});

test("a guest that a person has started all the same is not moved, and told why", async () => {
  const interposer = await entered();
  await interposer.suspected();
  await interposer.leave();
  await expect(entered()).rejects.toThrow(/start it anew/);
  expect(await readExportNote(notePath)).toEqual({ socketPath: null, isSuspect: true });
});

test("the note goes with the guest's QEMU", async () => {
  const interposer = await entered();
  await interposer.suspected();
  await interposer.close();
  expect(await readExportNote(notePath)).toBe(null);
});
