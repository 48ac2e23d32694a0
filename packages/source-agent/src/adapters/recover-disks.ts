/**
 * After the death of an agent that stood between a guest and its disks: QEMU holds the guest's
 * requests and looks for an export on the same socket. It gets one, straight over the image, sends
 * its requests again, and then the disk is given back.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { AdoptedDisks } from "@vmferry/agent";
import { ImageFile, lockImage, NbdServer } from "@vmferry/block";
import { Deferred } from "@vmferry/core";
import type { GuestDisk } from "@vmferry/protocol";
import { diskNodeNames, rawNode, resolveImage, type BlockNode } from "@vmferry/qemu";

/**
 * QEMU looks for its export again after 1, 2, 4, 8 and then every 16 seconds while the guest has
 * requests under way; where it has none, the swap itself makes QEMU look. A guest that stands still
 * has none: QEMU drains its disks when it stops the vCPUs.
 */
const ATTACH_MS_MAX = 17_000;
/** While QEMU waits for its export inside a command, it answers nothing else. */
const PATIENT = { timeoutMs: 60_000 };

/**
 * False where no disk needed it. Rejects when a disk cannot be given back; the guest then waits for
 * its next agent.
 */
export async function recoverDisks(guest: AdoptedDisks): Promise<boolean> {
  const nodes = await guest.qmp.execute("query-named-block-nodes", { flat: true });
  const recovered = guest.disks.map((disk) => recoverDisk(guest, disk, nodes));
  return (await Promise.all(recovered)).includes(true);
}

async function recoverDisk(
  { qmp, imageDir, logger }: AdoptedDisks,
  { id, image: name, format }: GuestDisk,
  nodes: readonly BlockNode[],
): Promise<boolean> {
  const names = diskNodeNames(id);
  const exported = nodes.find(({ nodeName }) => nodeName === names.nbd);
  if (exported === undefined) return false;
  if (format !== "raw") {
    // The target of a mirror that has failed with its agent; the guest has its disk.
    await qmp.execute("blockdev-del", { "node-name": names.nbd }, PATIENT);
    return false;
  }
  const above = nodes.find(({ nodeName }) => nodeName === names.raw);
  const isUsed = above?.filename === exported.filename;
  const socketPath = socketPathOf(exported.filename);
  logger.warn({ disk: id, isUsed, socketPath }, "the disk lost its agent; giving it back");
  const { path } = await resolveImage({ imageDirectory: imageDir, name });
  const image = await ImageFile.open(path);
  try {
    // Nobody else has it open: what the last agent had under way has ended.
    const lock = isUsed ? await lockImage(image) : null;
    const attached = new Deferred();
    const server = await NbdServer.open({
      socketPath,
      exportName: id,
      device: image,
      onAttached: () => {
        attached.resolve();
      },
    });
    try {
      if (isUsed) {
        const { running } = await qmp.execute("query-status");
        if (running) await Promise.race([attached.promise, sleep(ATTACH_MS_MAX)]);
        await lock?.unlock();
        await qmp.execute("blockdev-reopen", { options: [rawNode(id, "file")] }, PATIENT);
      }
      // While the export is there: QEMU flushes a node before it lets go of it, and would hold
      // everything until somebody answers.
      await qmp.execute("blockdev-del", { "node-name": names.nbd }, PATIENT);
    } finally {
      await server.close();
    }
  } finally {
    await image.close();
  }
  return true;
}

/** From `nbd+unix:///disk0?socket=/run/…`, as QEMU writes it. */
function socketPathOf(filename: string): string {
  const path = new URL(filename).searchParams.get("socket");
  if (path === null) throw new Error(`QEMU names no socket for its export: ${filename}`);
  return path;
}
