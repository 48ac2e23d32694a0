import { Type, type Static } from "typebox";
import { Value } from "typebox/value";
import type { Immutable } from "./immutable.ts";
import { NAME_PATTERN } from "./schema-parts.ts";

const MIB = 1024 ** 2;
const TIB = 1024 ** 4;

/**
 * A file inside the image directory. Every segment begins with a letter or digit, which keeps `..`,
 * hidden files and absolute paths out, and the commas that separate QEMU's options as well.
 */
const IMAGE_PATTERN = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]*(?:/[a-zA-Z0-9][a-zA-Z0-9_.+-]*)*$";
export const ImageSchema = Type.String({ pattern: IMAGE_PATTERN, maxLength: 255 });

const GuestDiskSchema = Type.Object(
  {
    // QEMU's node names end at 31 characters and begin with a letter.
    id: Type.String({ pattern: "^[a-zA-Z][a-zA-Z0-9_.-]{0,30}$" }),
    image: ImageSchema,
    format: Type.Optional(Type.Enum(["raw", "qcow2"], { default: "raw" })),
    mode: Type.Optional(Type.Enum(["copy", "shared", "scratch"], { default: "copy" })),
  },
  { additionalProperties: false },
);

export const GuestBootSchema = Type.Object(
  {
    kernel: ImageSchema,
    initrd: Type.Optional(ImageSchema),
    cmdline: Type.Optional(Type.String({ maxLength: 2048, pattern: "^[\\x20-\\x7e]*$" })),
  },
  { additionalProperties: false },
);

/** The body of `POST /v1/guests`. Whether QEMU can run and migrate it is the launcher's question. */
export const GuestDefinitionSchema = Type.Object(
  {
    name: Type.String({ pattern: NAME_PATTERN }),
    machine: Type.String({ pattern: NAME_PATTERN }),
    accel: Type.Optional(Type.Enum(["auto", "kvm", "tcg"], { default: "auto" })),
    cpu: Type.Optional(
      Type.String({ pattern: "^[a-zA-Z0-9][a-zA-Z0-9_.,+=-]{0,255}$", default: "qemu64" }),
    ),
    vcpus: Type.Optional(Type.Integer({ minimum: 1, maximum: 255, default: 1 })),
    memoryBytes: Type.Integer({ minimum: 16 * MIB, maximum: 16 * TIB, multipleOf: MIB }),
    /** Without it the firmware boots from the first disk. */
    boot: Type.Optional(GuestBootSchema),
    disks: Type.Optional(Type.Array(GuestDiskSchema, { maxItems: 24, default: [] })),
    serial: Type.Optional(Type.Enum(["file"], { default: "file" })),
  },
  { additionalProperties: false },
);

/** What a caller may write: everything that has a default can be left out. */
export type GuestDefinitionInput = Immutable<Static<typeof GuestDefinitionSchema>>;

export type GuestDisk = Required<Immutable<Static<typeof GuestDiskSchema>>>;
export type GuestBoot = Immutable<Static<typeof GuestBootSchema>>;

/** What a service gets: validated, the defaults filled in. */
export type GuestDefinition = Required<Omit<GuestDefinitionInput, "disks" | "boot">> &
  Pick<GuestDefinitionInput, "boot"> & { readonly disks: readonly GuestDisk[] };

/** The definition with its defaults, for one that did not come through the HTTP API. */
export function fillGuestDefinition(input: GuestDefinitionInput): GuestDefinition {
  // Default() fills the value that it is given, and that one is the caller's.
  return Value.Default(GuestDefinitionSchema, structuredClone(input)) as GuestDefinition;
}
