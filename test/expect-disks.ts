// What has to be true of a guest's disks after every migration, whether the guest arrived or stayed.

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { promisify } from "node:util";
import { expect } from "vitest";
import type { MigrationObject } from "@vmferry/protocol";
import type { MovingGuest } from "./moving-guest.ts";
import { blockNodesOf } from "./probed-qemu.ts";

const run = promisify(execFile);

/** Of the two images, by a program that knows nothing of vmferry. Nobody may write meanwhile. */
export async function expectEqualImages(
  source: string,
  dest: string,
  [sourceFormat, destFormat]: readonly [string, string] = ["raw", "raw"],
): Promise<void> {
  const formats = ["-f", sourceFormat, "-F", destFormat];
  const { stdout } = await run("qemu-img", ["compare", "-U", ...formats, source, dest]);
  expect(stdout).toContain("Images are identical.");
}

export async function convertToQcow2(raw: string, qcow2: string): Promise<void> {
  await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, qcow2]);
}

/** Both agents hashed what their images hold, and it is the same. */
export async function expectEqualDigests(
  guest: MovingGuest,
  migration: MigrationObject,
  ids: readonly string[],
): Promise<void> {
  const atDest = await guest.lab.dest.api.migration(migration.id);
  const digests = migration.result?.diskDigests ?? {};
  expect(Object.keys(digests)).toEqual(ids);
  for (const id of ids) expect(digests[id]).toMatch(/^[0-9a-f]{64}$/);
  expect(atDest.result?.diskDigests).toEqual(digests);
}

/** The guest's QEMU is connected to its image and to nothing of the agent. */
export async function expectSwapUndone(
  guest: MovingGuest,
  directory: string,
  diskId: string,
): Promise<void> {
  const { pid } = await guest.atSource();
  const nodes = await blockNodesOf(directory, pid ?? 0);
  const names = nodes.map(({ nodeName }) => nodeName);
  expect(names).toContain(`${diskId}-file`);
  expect(names).not.toContain(`${diskId}-nbd`);
  const raw = nodes.find(({ nodeName }) => nodeName === diskId);
  const file = nodes.find(({ nodeName }) => nodeName === `${diskId}-file`);
  expect(raw?.filename).toBe(file?.filename);
}

/** Of a failed attempt nothing is left that somebody could take for a disk. */
export function expectNoImage(path: string): void {
  expect(existsSync(path)).toBe(false);
  expect(existsSync(`${path}.vmferry`)).toBe(false);
}
