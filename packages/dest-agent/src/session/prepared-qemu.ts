/** A guest that is offered, and a QEMU that somebody has prepared for it: are they the same machine? */
import { ProblemError, type Attachment, type Guest } from "@vmferry/agent";
import type { ControlMessageOf, GuestDefinition, GuestDisk } from "@vmferry/protocol";
import { definitionOf } from "./offer-check.ts";

/** Also what is asked before an offer: a probe. */
type Offer = Pick<ControlMessageOf<"offer">, "guest" | "accel" | "disks">;

/** The guest as it will run in that QEMU: its disks have the source's ids, over the images here. */
export interface PreparedGuest {
  readonly definition: GuestDefinition;
  readonly attachment: Attachment;
}

/** Throws `prepared-qemu-differs`, which names everything that does. */
export function fitPrepared(
  offer: Offer,
  prepared: Pick<Guest, "definition" | "attachment"> & {
    readonly process: { readonly pid: number };
  },
): PreparedGuest {
  const wanted = definitionOf(offer);
  const there = prepared.definition;
  const differences: string[] = [];
  const compare = (field: string, is: unknown, hasToBe: unknown): void => {
    if (is !== hasToBe)
      differences.push(`${field} is ${String(is)} and has to be ${String(hasToBe)}`);
  };
  compare("machine", there.machine, wanted.machine);
  compare("accel", there.accel, wanted.accel);
  compare("cpu", modelOf(there.cpu), modelOf(wanted.cpu));
  compare("vcpus", there.vcpus, wanted.vcpus);
  compare("memoryBytes", there.memoryBytes, wanted.memoryBytes);
  compare("the number of disks", there.disks.length, wanted.disks.length);
  const { diskBytes } = prepared.attachment!;
  const disks = matchDisks(wanted.disks, there.disks);
  for (const [index, { image, preparedId, id }] of disks.entries()) {
    const { sizeBytes } = offer.disks[index] ?? { sizeBytes: 0 };
    compare(`the size of disk ${id} (${image})`, diskBytes[preparedId], sizeBytes);
  }
  if (differences.length > 0) {
    throw new ProblemError(
      `The QEMU that was prepared for guest ${wanted.name} (process ${prepared.process.pid}) is not ` +
        `like the guest: ${differences.join("; ")}. Start it again with what the guest has.`,
      { code: "prepared-qemu-differs" },
    );
  }
  const sizes = disks.map(({ id, preparedId }) => [id, diskBytes[preparedId] ?? 0] as const);
  return {
    definition: {
      ...wanted,
      disks: disks.map(({ id, image, mode }) => ({ id, image, mode, format: "raw" })),
    },
    attachment: { ...prepared.attachment!, diskBytes: Object.fromEntries(sizes) },
  };
}

interface MatchedDisk extends GuestDisk {
  readonly preparedId: string;
}

/** By their ids where they have the same; else in their order. */
function matchDisks(wanted: readonly GuestDisk[], there: readonly GuestDisk[]): MatchedDisk[] {
  const byId = wanted.every(({ id }) => there.some((disk) => disk.id === id));
  return wanted.flatMap((disk, index) => {
    const match = byId ? there.find(({ id }) => id === disk.id) : there[index];
    return match === undefined ? [] : [{ ...disk, image: match.image, preparedId: match.id }];
  });
}

function modelOf(cpu: string): string {
  return cpu.split(",", 1)[0] ?? cpu;
}
