import { Type, type Static } from "typebox";
import { GuestBootSchema, GuestDefinitionSchema } from "./guest-definition.ts";
import type { Immutable } from "./immutable.ts";
import { NAME_PATTERN } from "./schema-parts.ts";

const { machine, memoryBytes } = GuestDefinitionSchema.properties;

/** What the kernel takes for the path of a socket, less the byte that ends it. */
const SOCKET_PATH_LENGTH_MAX = 107;

/** How a disk of the guest moves; what else there is to say of it, its QEMU says. */
const AttachedDiskSchema = Type.Object(
  {
    /** The name of the node that the guest's device stands on, as GET shows it. */
    id: Type.String({ pattern: "^[a-zA-Z][a-zA-Z0-9_-]{0,23}$" }),
    mode: Type.Enum(["copy", "shared"]),
  },
  { additionalProperties: false },
);

/**
 * The other body of `POST /v1/guests`: a QEMU that somebody else started. What is left out is read
 * from QEMU, as far as it says it; what is there has to be what QEMU says. Without `cpu`, no dest
 * launches the guest, for QEMU does not tell its features.
 */
export const GuestAttachSchema = Type.Object(
  {
    name: Type.String({ pattern: NAME_PATTERN }),
    attach: Type.Object(
      {
        /** A monitor in control mode that nobody else uses. */
        qmp: Type.String({
          pattern: "^/[^\\x00-\\x1f]+$",
          maxLength: SOCKET_PATH_LENGTH_MAX,
        }),
      },
      { additionalProperties: false },
    ),
    machine: Type.Optional(machine),
    accel: Type.Optional(Type.Enum(["kvm", "tcg"])),
    cpu: Type.Optional(Type.String({ pattern: "^[a-zA-Z0-9][a-zA-Z0-9_.,+=-]{0,255}$" })),
    vcpus: Type.Optional(Type.Integer({ minimum: 1, maximum: 255 })),
    memoryBytes: Type.Optional(memoryBytes),
    boot: Type.Optional(GuestBootSchema),
    disks: Type.Optional(Type.Array(AttachedDiskSchema, { maxItems: 24 })),
  },
  { additionalProperties: false },
);

export type GuestAttach = Immutable<Static<typeof GuestAttachSchema>>;
