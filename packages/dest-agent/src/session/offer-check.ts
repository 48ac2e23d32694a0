import { ProblemError, type JournalRecordOf } from "@vmferry/agent";
import {
  fillGuestDefinition,
  type ControlMessageOf,
  type GuestDefinition,
  type GuestDisk,
} from "@vmferry/protocol";
import { inspectQemuBinary } from "@vmferry/qemu";

type OfferedGuest = Pick<ControlMessageOf<"offer">, "guest" | "accel">;

/**
 * The guest as it will run here: with the accelerator that the source resolved, not "auto" again,
 * and with raw images for what is copied, whatever the format at the source is.
 */
export function definitionOf(offer: OfferedGuest): GuestDefinition {
  const definition = fillGuestDefinition(offer.guest);
  return { ...definition, accel: offer.accel, disks: definition.disks.map(asArriving) };
}

function asArriving(disk: GuestDisk): GuestDisk {
  if (disk.mode === "shared" || disk.format === "raw") return disk;
  return { ...disk, format: "raw", image: `${disk.image.replace(/\.qcow2$/, "")}.raw` };
}

/** Throws where a definition does not describe the guest. */
export function refuseLaunch({
  guest,
  launchRefusal,
}: Pick<ControlMessageOf<"offer">, "guest" | "launchRefusal">): void {
  if (launchRefusal === undefined) return;
  throw new ProblemError(
    `No QEMU can be launched for guest ${guest.name}, for ${launchRefusal}. Start one like it here ` +
      "with -S -incoming defer, and attach this dest agent to it first.",
    { code: "dest-not-prepared" },
  );
}

export async function refuseMachineType(offer: OfferedGuest, qemu: string): Promise<void> {
  const { machine } = definitionOf(offer);
  const { machineTypes, version } = await inspectQemuBinary(qemu);
  if (!machineTypes.some(({ name }) => name === machine)) {
    const { major, minor } = version;
    throw new ProblemError(
      `The dest's QEMU ${major}.${minor} does not know the machine type ${machine}.`,
      { code: "machine-type-unsupported" },
    );
  }
}

/** Who owns a guest since a later epoch than the one that is offered? This host, and it knows. */
export function refuseOutdated(
  last: JournalRecordOf<"dest"> | null,
  { epoch }: Pick<ControlMessageOf<"offer">, "epoch">,
): void {
  if (last === null || (last.kind !== "taken" && last.kind !== "complete")) return;
  if (epoch > last.epoch) return;
  throw new ProblemError(
    `This host took the guest in epoch ${last.epoch}; epoch ${epoch} of it is out of date.`,
    { code: "dest-guest-exists" },
  );
}

/** What can be known before a QEMU is launched; the reasons that it gives itself come later. */
export async function checkOffer(
  offer: OfferedGuest & Pick<ControlMessageOf<"offer">, "launchRefusal">,
  qemu: string,
): Promise<void> {
  refuseLaunch(offer);
  await refuseMachineType(offer, qemu);
}
