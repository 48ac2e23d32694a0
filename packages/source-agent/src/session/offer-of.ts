import { randomBytes } from "node:crypto";
import type { ControlMessageOf, StunRef } from "@vmferry/protocol";
import type { OfferedDisk } from "../disk/open-disk.ts";
import type { SourceSessionPorts } from "./source-session-ports.ts";

/** What the dest is asked to take. */
export function offerOf(
  { guest, bulkConnections }: SourceSessionPorts,
  { migrationId, epoch }: StunRef,
  disks: OfferedDisk[],
): ControlMessageOf<"offer"> {
  const { definition, accel, uuid, qemuVersion } = guest;
  return {
    kind: "offer",
    migrationId,
    epoch,
    // As the schema of the message has it: a plain copy.
    guest: { ...definition, disks: definition.disks.map((disk) => ({ ...disk })) },
    accel,
    uuid,
    qemuVersion,
    bulkConnections,
    disks,
    hashSeed: randomBytes(8).toString("hex"),
  };
}
