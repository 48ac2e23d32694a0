import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resolveImage, type ImagePath } from "./image-path.ts";

let root: string;
let imageDirectory: string;
let server: Server;

beforeAll(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), "images-")));
  imageDirectory = join(root, "images");
  await mkdir(join(imageDirectory, "linux"), { recursive: true });
  await mkdir(join(root, "images-of-others"));
  await writeFile(join(root, "secret"), "");
  await writeFile(join(root, "images-of-others", "x.raw"), "");
  await writeFile(join(imageDirectory, "a.raw"), "");
  await writeFile(join(imageDirectory, "a, b=c.raw"), "");
  await writeFile(join(imageDirectory, "linux", "vmlinuz"), "");
  await symlink("a.raw", join(imageDirectory, "inside"));
  await symlink("../secret", join(imageDirectory, "escape"));
  await symlink("../images-of-others", join(imageDirectory, "neighbour"));
  await symlink("nowhere", join(imageDirectory, "dangling"));
  await symlink("loop", join(imageDirectory, "loop"));
  await symlink(imageDirectory, join(root, "link-to-images"));
  server = createServer();
  await new Promise<void>((resolve) => server.listen(join(imageDirectory, "socket"), resolve));
});

afterAll(async () => {
  await new Promise((resolve) => server.close(resolve));
  await rm(root, { recursive: true });
});

const resolve = (name: string): Promise<ImagePath> => resolveImage({ imageDirectory, name });

describe("resolveImage", () => {
  it("finds files in the image directory and below", async () => {
    expect(await resolve("a.raw")).toEqual({ kind: "file", path: join(imageDirectory, "a.raw") });
    expect((await resolve("linux/vmlinuz")).path).toBe(join(imageDirectory, "linux/vmlinuz"));
    expect((await resolve("a, b=c.raw")).path).toBe(join(imageDirectory, "a, b=c.raw"));
  });

  it("follows links that stay inside, and a link to the directory itself", async () => {
    expect((await resolve("inside")).path).toBe(join(imageDirectory, "a.raw"));
    const linked = { imageDirectory: join(root, "link-to-images"), name: "a.raw" };
    expect((await resolveImage(linked)).path).toBe(join(imageDirectory, "a.raw"));
  });

  it.each([
    "../secret",
    "..",
    "linux/../../secret",
    "linux/../a.raw",
    "/etc/passwd",
    "escape",
    "neighbour/x.raw",
  ])("refuses %j, which leads out", async (name) => {
    await expect(resolve(name)).rejects.toMatchObject({
      detail: { code: "image-outside-directory", name },
    });
  });

  it.each([
    "",
    "absent",
    "dangling",
    "loop",
    "linux",
    "socket",
    "a.raw/x",
    "a\0.raw",
    "x".repeat(5000),
  ])("refuses %j, which is no image", async (name) => {
    await expect(resolve(name)).rejects.toMatchObject({ code: "image-not-found" });
  });

  it("refuses the image directory itself", async () => {
    await expect(resolve(".")).rejects.toMatchObject({ code: "image-outside-directory" });
  });
});
