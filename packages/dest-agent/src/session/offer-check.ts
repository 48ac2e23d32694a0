import { ProblemError } from "@vmferry/agent";
import {
  fillGuestDefinition,
  type ControlMessageOf,
  type GuestDefinition,
} from "@vmferry/protocol";
import { inspectQemuBinary } from "@vmferry/qemu";

/** The guest as it will run here: the accelerator that the source resolved, not "auto" again. */
export function definitionOf(offer: ControlMessageOf<"offer">): GuestDefinition {
  return { ...fillGuestDefinition(offer.guest), accel: offer.accel };
}

/** What can be known before a QEMU is started; the reasons that it gives itself come later. */
export async function checkOffer(offer: ControlMessageOf<"offer">, qemu: string): Promise<void> {
  const { machine, disks } = definitionOf(offer);
  const { machineTypes, version } = await inspectQemuBinary(qemu);
  if (!machineTypes.some(({ name }) => name === machine)) {
    const { major, minor } = version;
    throw new ProblemError(
      `The dest's QEMU ${major}.${minor} does not know the machine type ${machine}.`,
      { code: "machine-type-unsupported" },
    );
  }
  if (disks.length > 0) {
    throw new ProblemError("This version migrates guests without disks only.", {
      code: "disk-not-migratable",
    });
  }
}
