// Block devices for tests: a loop device over a file, under a name in an image directory.

import { execFile } from "node:child_process";
import { stat, rm } from "node:fs/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface LoopDevice {
  readonly device: string;
  detach(): Promise<void>;
}

/** Needs root. `node` becomes a device node: a link would lead out of the image directory. */
export async function attachLoopDevice(backing: string, node: string): Promise<LoopDevice> {
  const { stdout } = await run("losetup", ["-f", "--show", backing]);
  const device = stdout.trim();
  const { rdev } = await stat(device);
  const [major, minor] = [(rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xfff00)];
  await run("mknod", [node, "b", String(major), String(minor)]);
  return {
    device,
    detach: async () => {
      await rm(node, { force: true });
      await run("losetup", ["-d", device]);
    },
  };
}
