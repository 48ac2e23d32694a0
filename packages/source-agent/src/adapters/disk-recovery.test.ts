import { once } from "node:events";
import { closeSync, existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger, ReopenedImage, type EarlierDisks } from "@vmferry/agent";
import { HeldSockets, ImageFile, lockImage } from "@vmferry/block";
import { DiskRecovery } from "./disk-recovery.ts";
import { exportNotePath, readExportNote, writeExportNote } from "./export-note.ts";

const logger = createLogger({ role: "source", level: "silent" });
let directory: string;
let guest: EarlierDisks;
let note: string;
let socketPath: string;
let sockets: HeldSockets;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-exports-"));
  const disks = [{ id: "disk0", image: "d.raw", format: "raw", mode: "copy" }] as const;
  guest = { directory, disks: [...disks], mirrored: false, imageDir: directory, logger };
  note = exportNotePath(directory, "disk0");
  socketPath = join(directory, "7b1e26d6-0.nbd");
  sockets = await HeldSockets.open({ directory, onTrouble: expect.unreachable });
  await writeFile(join(directory, "d.raw"), Buffer.alloc(1024 * 1024));
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

/** As an agent that has ended. */
async function leaveHeld(): Promise<void> {
  const earlier = await HeldSockets.open({ directory, onTrouble: expect.unreachable });
  const { descriptor, held } = await earlier.listen(socketPath);
  await held;
  closeSync(descriptor);
  earlier.close();
}

async function greeting(): Promise<string> {
  const socket = createConnection(socketPath);
  const [bytes] = (await once(socket, "data")) as [Buffer];
  socket.destroy();
  return bytes.toString("latin1", 0, 8);
}

test("an export that is written down is there again before anybody has talked to QEMU", async () => {
  const recovery = new DiskRecovery(sockets);
  await writeExportNote(note, socketPath);
  await recovery.reopen(guest);
  expect(await greeting()).toBe("NBDMAGIC");
  await recovery.forget(guest);
  expect([existsSync(socketPath), await readExportNote(note)]).toEqual([false, null]);
});

test("QEMU that came while no agent was there has waited for this one", async () => {
  await writeExportNote(note, socketPath);
  await leaveHeld();
  const greeted = greeting();
  const recovery = new DiskRecovery(sockets);
  await recovery.reopen(guest);
  expect(await greeted).toBe("NBDMAGIC");
  await recovery.forget(guest);
  expect(existsSync(socketPath)).toBe(false);
});

test("the socket of a guest that gets no export back is given up", async () => {
  await writeExportNote(note, socketPath);
  await leaveHeld();
  const refused = once(createConnection(socketPath), "data").catch((error: unknown) => error);
  await new DiskRecovery(sockets).forget(guest);
  expect(await refused).toMatchObject({ code: "ECONNRESET" });
  expect([existsSync(socketPath), await readExportNote(note)]).toEqual([false, null]);
});

test("where nothing is written down nothing is exported", async () => {
  await new DiskRecovery(sockets).reopen(guest);
  expect(existsSync(socketPath)).toBe(false);
});

test("a note that cannot be read keeps no other guest from its agent", async () => {
  await writeFile(note, "{}");
  await new DiskRecovery(sockets).reopen(guest);
  await expect(readExportNote(note)).rejects.toThrow("cannot be read");
});

test("a flush that failed before its agent died succeeds with no later one", async () => {
  const path = join(directory, "d.raw");
  const image = await ReopenedImage.open(path, logger, { isSuspect: true });
  await expect(image.flush()).rejects.toThrow("failed to store data before");
  await expect(image.flush()).rejects.toThrow("failed to store data before");
  image.giveUpFlushes();
  await image.flush();
  expect(image.isSuspect).toBe(true);
  await image.close();
});

test("a note says that the image is suspect, and one of an earlier release says nothing of it", async () => {
  await writeExportNote(note, socketPath);
  expect(await readExportNote(note)).toEqual({ socketPath, isSuspect: false });
  await writeExportNote(note, socketPath, true);
  expect(await readExportNote(note)).toEqual({ socketPath, isSuspect: true });
});

test("while somebody else has the image it is read and flushed, and a write waits", async () => {
  const path = join(directory, "d.raw");
  const other = await ImageFile.open(path);
  await lockImage(other);
  const image = await ReopenedImage.open(path, logger);
  const written = image.write(0, Buffer.from("later")).then(() => "written");
  await image.flush();
  expect((await image.read(0, 5)).toString()).toBe("\0\0\0\0\0");
  await other.close();
  expect(await written).toBe("written");
  expect((await image.read(0, 5)).toString()).toBe("later");
  await image.close();
});
