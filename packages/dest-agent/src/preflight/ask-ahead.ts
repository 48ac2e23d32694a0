import { messageOf } from "@vmferry/core";
import type { Logger } from "@vmferry/agent";
import { askQemu, chooseAccelerator, inspectQemuBinary, probeKvmSupport } from "@vmferry/qemu";

/** What a probe asks of QEMU is known when the first one comes. What QEMU refuses is for that to say. */
export async function askAhead(qemu: string, logger: Logger): Promise<void> {
  try {
    const [{ path }, kvm] = await Promise.all([inspectQemuBinary(qemu), probeKvmSupport()]);
    await askQemu(path, chooseAccelerator("auto", kvm));
  } catch (error) {
    logger.debug({ reason: messageOf(error) }, "QEMU could not be asked ahead");
  }
}
