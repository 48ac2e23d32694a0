import { randomBytes } from "node:crypto";
import type { ControlMessageOf, StunRef } from "@vmferry/protocol";
import type { OfferedDisk } from "../disk/open-disk.ts";
import type { MigrationPlan } from "./migration-plan.ts";
import type { SourceSessionPorts } from "./source-session-ports.ts";

export interface OfferParts {
  readonly stun: StunRef;
  readonly disks: OfferedDisk[];
  /** Of the source's journal. */
  readonly incarnation: string;
  /** What the source has shown on its witness; null where it has none. */
  readonly witness: string | null;
}

/** What the dest is asked to take. */
export function offerOf(
  { guest, bulkConnections }: Pick<SourceSessionPorts, "guest" | "bulkConnections">,
  { mode, fallback }: Pick<MigrationPlan, "mode" | "fallback">,
  { stun: { migrationId, epoch }, disks, incarnation, witness }: OfferParts,
): ControlMessageOf<"offer"> {
  const { definition, accel, uuid, qemuVersion, attachment } = guest;
  const launchRefusal = attachment?.launchRefusal ?? "";
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
    incarnation,
    postCopy: mode !== "pre-copy",
    witness,
    ...(fallback !== "none" && { pageFileKey: randomBytes(32).toString("hex") }),
    ...(launchRefusal === "" ? {} : { launchRefusal }),
  };
}
