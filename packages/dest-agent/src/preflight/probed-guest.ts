import { fillGuestDefinition, type ControlMessageOf, type GuestDisk } from "@vmferry/protocol";
import { definitionOf } from "../session/offer-check.ts";

export type Probe = ControlMessageOf<"probe">;

/** One of the same guest that is here still: an offer of it waits until it has made room. */
export interface EarlierAttempt {
  readonly isOpen: boolean;
}

/** A disk as it would arrive, with what the source says of it. */
export interface ProbedDisk {
  readonly disk: GuestDisk;
  readonly offered: Probe["disks"][number];
}

/** Throws where the probe describes other disks than its guest has. */
export function probedDisks(probe: Probe): readonly ProbedDisk[] {
  const { disks } = definitionOf(probe);
  if (disks.length !== probe.disks.length) {
    throw new Error("the source does not know of all disks how large they are");
  }
  return disks.map((disk, index) => ({ disk, offered: probe.disks[index]! }));
}

export function probedCpu({ guest }: Probe): string {
  return fillGuestDefinition(guest).cpu.split(",", 1)[0] ?? "";
}
