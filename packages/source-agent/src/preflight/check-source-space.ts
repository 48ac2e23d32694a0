import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { fails, passes, skips, warns, type Finding } from "@vmferry/agent";
import { checkFreeSpace } from "@vmferry/block";
import { messageOf } from "@vmferry/core";
import type { MigrationRequest } from "@vmferry/protocol";
import type { MeasuredDisk } from "./measure-disks.ts";

const HINT = "Free space in the state directory of the source.";

export interface SourceSpace {
  readonly disks: Promise<readonly MeasuredDisk[]>;
  readonly memoryBytes: number;
  readonly request: Pick<MigrationRequest, "mode" | "onStall">;
  /** Where copies have their place that QEMU's mirror fills. */
  readonly runDir: string;
  /** Where memory is stored that follows the guest; it may not be there yet. */
  readonly memoryDir: string;
}

/** A qcow2 image is mirrored into a file here, and memory that follows the guest is stored here. */
export async function checkSourceSpace(space: SourceSpace): Promise<Finding> {
  const { disks, memoryBytes, request, runDir, memoryDir } = space;
  // What is wrong with a disk is said by another check.
  const spooled = (await disks.catch(() => [])).filter(
    ({ definition: { mode, format } }) => mode === "copy" && format === "qcow2",
  );
  const spoolBytes = spooled.reduce((sum, { dataBytes }) => sum + dataBytes, 0);
  if (spoolBytes > 0) {
    try {
      await checkFreeSpace(runDir, { needBytes: spoolBytes, soonFreeBytes: 0 });
    } catch (error) {
      return fails(messageOf(error), HINT);
    }
  }
  const mayStore = request.mode === "post-copy" || mayBecomePostCopy(request);
  if (mayStore) {
    const { bavail, bsize } = await statfs(dirname(memoryDir));
    const freeBytes = bavail * bsize;
    if (freeBytes < memoryBytes + spoolBytes) {
      const text = `Post-copy may need ${memoryBytes} bytes at the source, which has ${freeBytes} left.`;
      return request.mode === "post-copy" ? fails(text, HINT) : warns(text, HINT);
    }
  }
  if (spoolBytes === 0 && !mayStore) return skips("Nothing is stored at the source.");
  return passes("The source has space for what it may have to store.");
}

function mayBecomePostCopy({ mode, onStall }: SourceSpace["request"]): boolean {
  return mode === "auto" && onStall === "post-copy";
}
