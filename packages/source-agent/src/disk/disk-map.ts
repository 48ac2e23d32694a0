/** What is known of each block of a disk that is copied, for the map that people look at. */
import { foldCells } from "@vmferry/agent";
import type { MapLetter, MigrationMap } from "@vmferry/protocol";
import type { MovingDisk } from "./disk-transfer.ts";

export function mapOfDisk(
  { id, blockBytes, disk, hashes }: Pick<MovingDisk, "id" | "blockBytes" | "disk" | "hashes">,
  { cells, nowMs }: { readonly cells: number; readonly nowMs: number },
): MigrationMap["disks"][number] {
  const { plan, sizeBytes } = disk;
  const unitsPerBlock = blockBytes / hashes.unitBytes;
  const stateOf = (block: number): MapLetter => {
    const state = plan.stateOf(block, nowMs);
    // Its first unit stands for the block.
    return state === "sent" && hashes.isZero(block * unitsPerBlock) ? "z" : LETTERS[state];
  };
  return { id, totalBytes: sizeBytes, cells: foldCells({ count: plan.blocks, cells, stateOf }) };
}

const LETTERS = { waiting: "w", marked: "d", held: "k", hot: "h", sent: "s" } as const;
