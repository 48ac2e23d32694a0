import { Type, type Static } from "typebox";
import type { Immutable } from "./immutable.ts";
import { CountSchema } from "./schema-parts.ts";

/**
 * What a stretch of memory or disk is in, one letter a state, the one furthest from done first:
 *
 *   f  a page fault of the guest waits for it (post-copy)
 *   m  not there yet where the guest runs (post-copy)
 *   k  kept back: it changes too often to be sent now
 *   h  hot: it keeps changing
 *   d  dirty: it changed lately, or has to be sent again
 *   w  waiting: not sent yet
 *   s  sent
 *   z  sent, and zero: it took no data
 */
export const MAP_LETTERS = ["f", "m", "k", "h", "d", "w", "s", "z"] as const;

export type MapLetter = (typeof MAP_LETTERS)[number];

export const MAP_CELLS_MAX = 4096;

/** A letter a cell, in the order of addresses; the cells are equally large. */
const MapAreaSchema = Type.Object({
  totalBytes: CountSchema,
  cells: Type.String({ pattern: `^[${MAP_LETTERS.join("")}]*$` }),
});

/** A picture of what has been sent. Null, or no such disk: not known here, or not now. */
export const MigrationMapSchema = Type.Object({
  ram: Type.Union([MapAreaSchema, Type.Null()]),
  disks: Type.Array(Type.Object({ id: Type.String(), ...MapAreaSchema.properties })),
});

export type MapArea = Immutable<Static<typeof MapAreaSchema>>;
export type MigrationMap = Immutable<Static<typeof MigrationMapSchema>>;

export const UNKNOWN_MAP: MigrationMap = { ram: null, disks: [] };
