import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { closeDescriptor, isDescriptorAt, openImageDescriptor } from "./image-descriptor.ts";

it("isDescriptorAt tells the open file from none and from another of the same name", async () => {
  const directory = await mkdtemp(join(tmpdir(), "descriptor-"));
  const path = join(directory, "disk.raw");
  await writeFile(path, "");
  const { fd } = await openImageDescriptor(path, false);
  expect(await isDescriptorAt(fd, path)).toBe(true);
  await rename(path, join(directory, "elsewhere"));
  expect(await isDescriptorAt(fd, path)).toBe(false);
  await writeFile(path, "");
  expect(await isDescriptorAt(fd, path)).toBe(false);
  await rename(join(directory, "elsewhere"), path);
  expect(await isDescriptorAt(fd, path)).toBe(true);
  await closeDescriptor(fd);
  await rm(directory, { recursive: true });
});
