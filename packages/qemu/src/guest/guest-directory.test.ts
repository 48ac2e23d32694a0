import {
  link,
  mkdir,
  mkdtemp,
  readdir,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { checkSocketPath, guestPaths, prepareGuestDirectory } from "./guest-directory.ts";
import { readLogTail } from "./log-tail.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "guest-dir-"));
});
afterEach(() => rm(root, { recursive: true }));

describe("prepareGuestDirectory", () => {
  it("makes a directory for this user only, also out of one that was not", async () => {
    for (const name of ["new", "old"]) {
      const paths = guestPaths(join(root, name));
      if (name === "old") await mkdir(paths.directory, { mode: 0o755 });
      await prepareGuestDirectory(paths);
      expect((await stat(paths.directory)).mode & 0o777).toBe(0o700);
    }
  });

  it("removes a socket that nobody listens on", async () => {
    const paths = guestPaths(root);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(paths.qmpSocket, resolve));
    // A hard link outlives the server's own clean-up, as the socket of a killed QEMU does.
    await link(paths.qmpSocket, join(root, "kept"));
    await new Promise((resolve) => server.close(resolve));
    await rename(join(root, "kept"), paths.qmpSocket);
    await prepareGuestDirectory(paths);
    expect(await readdir(root)).toEqual([]);
  });

  it("refuses a directory in which another QEMU listens, and leaves its socket alone", async () => {
    const paths = guestPaths(root);
    const server = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => server.listen(paths.qmpSocket, resolve));
    await expect(prepareGuestDirectory(paths)).rejects.toMatchObject({
      code: "guest-directory-in-use",
    });
    expect(await readdir(root)).toEqual(["qmp.sock"]);
    await new Promise((resolve) => server.close(resolve));
  });

  it("refuses a symbolic link and a file in place of the directory", async () => {
    await symlink(tmpdir(), join(root, "link"));
    await expect(prepareGuestDirectory(guestPaths(join(root, "link")))).rejects.toMatchObject({
      code: "guest-directory-unsafe",
    });
    expect((await stat(tmpdir())).mode & 0o777).not.toBe(0o700);
  });

  it("says which setting makes a socket path too long", async () => {
    const directory = join(root, "x".repeat(100));
    const paths = guestPaths(directory);
    await expect(prepareGuestDirectory(paths)).rejects.toMatchObject({
      detail: {
        code: "socket-path-too-long",
        path: join(directory, "qmp.sock"),
        pathBytesMax: 107,
        setting: "VMFERRY_STATE_DIR",
      },
    });
    expect(await readdir(root)).toEqual([]);
  });

  it("counts the bytes of a socket path, not its characters", () => {
    checkSocketPath("/" + "x".repeat(106));
    expect(() => {
      checkSocketPath("/" + "x".repeat(107));
    }).toThrow(/VMFERRY_STATE_DIR/);
    expect(() => {
      checkSocketPath("/" + "é".repeat(54));
    }).toThrow(/109 bytes/);
  });
});

describe("readLogTail", () => {
  it("gives the last lines of this run and nothing of an earlier one", async () => {
    const path = join(root, "log");
    await writeFile(path, "earlier\nfirst\n\nsecond\n");
    expect(await readLogTail(path, "earlier\n".length)).toEqual(["first", "second"]);
    expect(await readLogTail(path, 1000)).toEqual([]);
  });

  it("reads a bounded part of a log of any length, in whole lines", async () => {
    const path = join(root, "log");
    const lines = Array.from({ length: 5000 }, (_, n) => `line ${n}`);
    await writeFile(path, lines.join("\n"));
    expect(await readLogTail(path, 0)).toEqual(lines.slice(-20));
    await writeFile(path, "x".repeat(1_000_000));
    expect(await readLogTail(path, 0)).toEqual([]);
  });
});
