import { Type, type Static } from "typebox";
import type { Immutable } from "./immutable.ts";
import { CountSchema, nullable } from "./schema-parts.ts";

/**
 * `handed-off`: ownership has gone to the other host and this QEMU never runs again.
 * `in-doubt`: the answer to the hand-over was lost; paused, nothing lost, nobody decides by time.
 */
const GuestStateSchema = Type.Enum([
  "running",
  "paused",
  "incoming",
  "handed-off",
  "stopped",
  "in-doubt",
]);

const GuestObjectDiskSchema = Type.Object({
  id: Type.String(),
  image: Type.String(),
  format: Type.Enum(["raw", "qcow2"]),
  mode: Type.Enum(["copy", "shared", "scratch"]),
  sizeBytes: nullable(CountSchema),
});

/** Of a guest whose QEMU somebody else started. */
const AttachedSchema = Type.Object({
  /** The path of its monitor's socket. */
  qmp: Type.String(),
  /** Why a dest has to have a QEMU prepared, and cannot launch one; empty where it can. */
  launchRefusal: Type.String(),
  /** Why the guest cannot come here by post-copy; empty where it can, or is here. */
  postCopyRefusal: Type.String(),
});

export const GuestObjectSchema = Type.Object({
  name: Type.String(),
  state: GuestStateSchema,
  /** Counts the owners of the guest: a host may run it only in the epoch that it owns. */
  epoch: CountSchema,
  pid: nullable(CountSchema),
  qemuVersion: nullable(Type.String()),
  /** The path of the console's log on this host. */
  serialLog: nullable(Type.String()),
  machine: Type.String(),
  /**
   * The accelerator in use; "auto" has been decided by the time a guest exists. "unknown" where the
   * agent cannot read what it wrote down of the guest, which is then in doubt.
   */
  accel: Type.Enum(["kvm", "tcg", "unknown"]),
  cpu: Type.String(),
  vcpus: CountSchema,
  memoryBytes: CountSchema,
  disks: Type.Array(GuestObjectDiskSchema),
  /** Null for a guest that the agent started. */
  attached: Type.Unsafe<Static<typeof AttachedSchema> | null>({
    ...AttachedSchema,
    type: ["object", "null"],
  }),
});

export const GuestListSchema = Type.Object({ guests: Type.Array(GuestObjectSchema) });

export type GuestState = Static<typeof GuestStateSchema>;
export type GuestAttached = Immutable<Static<typeof AttachedSchema>>;
export type GuestObjectDisk = Immutable<Static<typeof GuestObjectDiskSchema>>;
export type GuestObject = Immutable<Static<typeof GuestObjectSchema>>;
