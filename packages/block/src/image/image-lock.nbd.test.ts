import {
  execFile,
  spawn,
  spawnSync,
  type ChildProcessWithoutNullStreams,
} from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ImageFile } from "./image-file.ts";
import { lockImage, lockImageStill } from "./image-lock.ts";

const run = promisify(execFile);

let directory: string;
let path: string;
let image: ImageFile;
let holders: ChildProcessWithoutNullStreams[];

beforeEach(async () => {
  holders = [];
  directory = await mkdtemp(join(tmpdir(), "qemu-lock-"));
  path = join(directory, "disk.raw");
  await writeFile(path, "");
  await truncate(path, 2 ** 20);
  image = await ImageFile.open(path);
});

afterEach(async () => {
  for (const holder of holders) await release(holder);
  await image.close();
  await rm(directory, { recursive: true });
});

/** A qemu-io that has the image open and waits for commands. */
async function holdInQemu(...options: string[]): Promise<ChildProcessWithoutNullStreams> {
  const holder = spawn("qemu-io", ["-f", "raw", ...options, path]);
  holders.push(holder);
  let output = "";
  holder.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
  for await (const chunk of holder.stdout.iterator({ destroyOnReturn: false })) {
    output += String(chunk);
    if (output.includes("qemu-io>")) return holder;
  }
  throw new Error(`qemu-io ended: ${output}`);
}

async function release(holder: ChildProcessWithoutNullStreams): Promise<void> {
  if (holder.exitCode !== null || holder.signalCode !== null) return;
  const exited = once(holder, "exit");
  holder.stdout.resume();
  holder.stdin.end("quit\n");
  await exited;
}

function qemuIo(...commands: string[]): Promise<{ stdout: string }> {
  return run("qemu-io", ["-f", "raw", ...commands.flatMap((command) => ["-c", command]), path]);
}

const refusedByQemu = {
  stderr: expect.stringContaining('Failed to get "write" lock') as string,
};
const refused = { detail: { code: "image-locked", path: expect.any(String) as string } };

const HAS_QEMU_IO = spawnSync("qemu-io", ["--version"]).status === 0;
const MAY_SKIP = !HAS_QEMU_IO && process.env["CI"] === undefined;
const TITLE = `the lock of an image, and QEMU${MAY_SKIP ? " (there is no qemu-io)" : ""}`;

describe.skipIf(MAY_SKIP)(TITLE, () => {
  it("keeps QEMU from writing to an image that we hold, and lets it in afterwards", async () => {
    const lock = await lockImage(image);
    await expect(qemuIo("write -P 7 0 512")).rejects.toMatchObject(refusedByQemu);
    expect((await readFile(path))[0]).toBe(0);
    await lock.unlock();
    await qemuIo("write -P 7 0 512");
    expect((await readFile(path))[0]).toBe(7);
  });

  it("keeps qemu-img from resizing and from copying an image that we hold", async () => {
    await lockImage(image);
    const resize = run("qemu-img", ["resize", "-f", "raw", path, "2M"]);
    await expect(resize).rejects.toThrow("lock");
    const copy = run("qemu-img", ["convert", "-f", "raw", path, join(directory, "copy")]);
    await expect(copy).rejects.toThrow("lock");
  });

  it("keeps QEMU from writing to an image that is to keep still, and lets it read", async () => {
    const lock = await lockImageStill(image);
    await expect(qemuIo("write -P 7 0 512")).rejects.toMatchObject(refusedByQemu);
    await run("qemu-img", ["convert", "-f", "raw", path, join(directory, "copy")]);
    await lock.unlock();
    await qemuIo("write -P 7 0 512");
  });

  it("lets QEMU have the image after the close", async () => {
    await lockImage(image);
    await image.close();
    await qemuIo("write -P 7 0 512");
  });

  it("is refused while QEMU has the image open for writing, and had when QEMU is gone", async () => {
    const holder = await holdInQemu();
    await expect(lockImage(image)).rejects.toMatchObject(refused);
    // The refused attempt leaves nothing that could stand in QEMU's way.
    await qemuIo("write -P 7 0 512");
    await release(holder);
    await lockImage(image);
    await expect(qemuIo("write -P 7 0 512")).rejects.toMatchObject(refusedByQemu);
  });

  it("is had when QEMU is killed", async () => {
    const holder = await holdInQemu();
    const exited = once(holder, "exit");
    holder.kill("SIGKILL");
    await exited;
    await lockImage(image);
  });
});
