// What has to be true of a guest whose disk has followed it.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import type { MigrationObject } from "@vmferry/protocol";
import type { MovingGuest } from "./moving-guest.ts";
import { blockNodesOf } from "./probed-qemu.ts";

const WAIT_MS = 120_000;

export interface FollowingDisk {
  readonly guest: MovingGuest;
  /** Its only disk is `disk0`, on this image. */
  readonly image: string;
  /** Of the migration. */
  readonly id: string;
}

/** `probes`: where the dest's QEMUs have their second monitors. */
export async function expectWholeDisk(
  { guest, image, id }: FollowingDisk,
  probes: string,
): Promise<MigrationObject> {
  const { lab } = guest;
  const migration = await lab.source.api.wait(id, WAIT_MS);
  expect(migration).toMatchObject({ phase: "completed", error: null });
  expect(migration.disks).toMatchObject([{ id: "disk0", remainingBytes: 0 }]);
  const atDest = await lab.dest.api.wait(id, WAIT_MS);
  expect(atDest).toMatchObject({ phase: "completed", error: null });
  expect((await guest.verifyAtDest()).findings).toEqual([]);
  const object = await guest.atDest();
  expect(object).toMatchObject({ state: "running" });
  await expect.poll(() => guest.qemus("source"), { timeout: 10_000 }).toEqual([]);
  // Nothing of the agent is in the way, and nothing of the migration beside the image.
  const path = lab.imagePath("dest", image);
  const nodes = await blockNodesOf(probes, object.pid ?? 0);
  const names = Object.fromEntries(nodes.map(({ nodeName, filename }) => [nodeName, filename]));
  expect(names).toEqual({ disk0: path, "disk0-file": path });
  expect([`${path}.vmferry`, `${path}.vmferry-present`].map(existsSync)).toEqual([false, false]);
  const guestDirectory = join(lab.directory, "d", "guests", guest.name);
  const left = ["lazy-disks.json", "ram-section.json"].map((name) => join(guestDirectory, name));
  expect(left.filter(existsSync)).toEqual([]);
  return migration;
}
