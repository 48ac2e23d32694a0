import type { MigrationMap } from "@vmferry/protocol";

/**
 * What can draw a map of its migration. It is drawn when somebody asks, from what the data path has
 * anyway: nothing is kept for it, and nothing is done for it while nobody asks.
 */
export interface MapSource {
  map(cells: number): MigrationMap;
}
