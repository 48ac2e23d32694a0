import { Type, type Static } from "typebox";
import type { Immutable } from "./immutable.ts";
import { OVERRIDABLE_CHECKS } from "./preflight.ts";
import { NAME_PATTERN, nullable } from "./schema-parts.ts";

// Below a page a second a limit could not be told from a stall.
const BandwidthSchema = Type.Integer({ minimum: 4096, maximum: Number.MAX_SAFE_INTEGER });
const downtimeOptions = { minimum: 1, maximum: 3_600_000 };
const TotalSchema = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER });

/** Null is "no limit". */
const MigrationLimitsSchema = Type.Object(
  {
    bandwidthBytesPerSecond: Type.Optional(nullable(BandwidthSchema, { default: null })),
    downtimeMsMax: Type.Optional(Type.Integer({ ...downtimeOptions, default: 300 })),
    totalMsMax: Type.Optional(nullable(TotalSchema, { default: null })),
  },
  { additionalProperties: false, default: {} },
);

const MigrationDiskOptionsSchema = Type.Object(
  {
    tracker: Type.Optional(Type.Enum(["bitmap", "bloom"], { default: "bitmap" })),
    writes: Type.Optional(Type.Enum(["mirror", "iterate"], { default: "mirror" })),
    /** `lazy`: raw disks follow the guest, which runs at the dest before they are there. */
    handover: Type.Optional(Type.Enum(["synced", "lazy"], { default: "synced" })),
  },
  { additionalProperties: false, default: {} },
);

/** The body of `POST /v1/migrations`. `destination` is the name of a configured peer, never a URL. */
export const MigrationRequestSchema = Type.Object(
  {
    guest: Type.String({ pattern: NAME_PATTERN }),
    destination: Type.String({ pattern: NAME_PATTERN }),
    mode: Type.Optional(Type.Enum(["auto", "pre-copy", "post-copy"], { default: "auto" })),
    limits: Type.Optional(MigrationLimitsSchema),
    onStall: Type.Optional(
      Type.Enum(["post-copy", "throttle", "cancel", "stun"], { default: "post-copy" }),
    ),
    disk: Type.Optional(MigrationDiskOptionsSchema),
    fallback: Type.Optional(Type.Enum(["none", "shared-filesystem"], { default: "none" })),
    /** Checks of the preflight that shall not refuse the migration when they fail. */
    allowUnsafe: Type.Optional(
      Type.Array(Type.Enum([...OVERRIDABLE_CHECKS]), {
        maxItems: OVERRIDABLE_CHECKS.length,
        default: [],
      }),
    ),
  },
  { additionalProperties: false },
);

/** The limits that change; a limit that is not named stays. No defaults: they would overwrite. */
const MigrationLimitsPatchSchema = Type.Object(
  {
    bandwidthBytesPerSecond: Type.Optional(nullable(BandwidthSchema)),
    downtimeMsMax: Type.Optional(Type.Integer(downtimeOptions)),
    totalMsMax: Type.Optional(nullable(TotalSchema)),
  },
  { additionalProperties: false, minProperties: 1 },
);

/** The body of `PATCH /v1/migrations/{id}`. */
export const MigrationPatchSchema = Type.Object(
  { limits: MigrationLimitsPatchSchema },
  { additionalProperties: false },
);

/** The body of `POST /v1/migrations/{id}/resolve`: what a person says whose the guest is. */
export const MigrationResolveSchema = Type.Object(
  {
    owner: Type.Enum(["source", "dest"]),
    /** The other side has been seen to be unable to run the guest. */
    fenced: Type.Literal(true),
  },
  { additionalProperties: false },
);

/** What a caller may write: everything that has a default can be left out. */
export type MigrationRequestInput = Immutable<Static<typeof MigrationRequestSchema>>;

export type MigrationLimits = Required<Immutable<Static<typeof MigrationLimitsSchema>>>;
export type MigrationLimitsPatch = Immutable<Static<typeof MigrationLimitsPatchSchema>>;
export type MigrationResolve = Immutable<Static<typeof MigrationResolveSchema>>;
export type MigrationDiskOptions = Required<Immutable<Static<typeof MigrationDiskOptionsSchema>>>;

/** What a service gets: validated, the defaults filled in. */
export type MigrationRequest = Required<Omit<MigrationRequestInput, "limits" | "disk">> & {
  readonly limits: MigrationLimits;
  readonly disk: MigrationDiskOptions;
};
