import { fails, passes, skips, type Finding } from "@vmferry/agent";
import { messageOf } from "@vmferry/core";
import type { MeasuredDisk } from "./measure-disks.ts";

const HINT = "Give the disk an image of its own inside the image directory, raw or plain qcow2.";

/** Whether each disk is one that can travel. */
export async function checkDisks(disks: Promise<readonly MeasuredDisk[]>): Promise<Finding> {
  try {
    const measured = await disks;
    if (measured.length === 0) return skips("The guest has no disk.");
    const texts = measured.map(
      ({ definition: { id, mode }, sizeBytes }) => `${id} (${mode}, ${sizeBytes} bytes)`,
    );
    return passes(`Every disk can travel: ${texts.join(", ")}.`);
  } catch (error) {
    return fails(messageOf(error), HINT);
  }
}
