import { expect, it } from "vitest";
import type { MigrationDisk, MigrationObject } from "@vmferry/protocol";
import { sampleDisk, sampleMigration } from "../../sample-migration.ts";
import { followingOf, type Following } from "./following.ts";

function following(changes: Partial<MigrationObject>): Following | null {
  const { ram } = sampleMigration([]);
  return followingOf(
    sampleMigration([["post-copy", 0]], {
      ram: { ...ram, totalBytes: 65_536, remainingBytes: 8192 },
      ...changes,
    }),
  );
}

const disk = (remainingBytes: number | null, mode: MigrationDisk["mode"] = "copy"): MigrationDisk =>
  sampleDisk({ remainingBytes, mode });

it("memory and disks that follow are told together with the share", () => {
  const disks = [disk(4096), disk(0), disk(1, "shared")];
  expect(following({ disks, fallback: "growing" })).toEqual({
    ...{ memoryBytes: 8192, diskBytes: 4096 },
    ...{ share: "growing", sourceHost: "needed" },
  });
});

it.each([
  { what: "nothing goes by a share", fallback: null, disks: [], sourceHost: "needed" },
  { what: "the share fails", fallback: "failed", disks: [], sourceHost: "needed" },
  { what: "a disk follows", fallback: "complete", disks: [disk(4096)], sourceHost: "needed" },
  { what: "a disk is unknown", fallback: "complete", disks: [disk(null)], sourceHost: "unknown" },
  { what: "disks are whole", fallback: "complete", disks: [disk(0)], sourceHost: "dispensable" },
  { what: "there is no disk", fallback: "complete", disks: [], sourceHost: "dispensable" },
] as const)("where $what the source's host is $sourceHost", ({ fallback, disks, sourceHost }) => {
  expect(following({ fallback, disks })).toMatchObject({ sourceHost });
});

it("an agent that was started anew promises nothing of disks that it does not know", () => {
  const { ram } = sampleMigration([]);
  const recovered = { ram: { ...ram, totalBytes: null }, fallback: "complete" } as const;
  expect(following(recovered)).toMatchObject({ sourceHost: "unknown" });
});

it.each(["pre-copy", "handing-over", "in-doubt", "completed"] as const)(
  "nothing is said of it in %s",
  (phase) => {
    expect(followingOf(sampleMigration([[phase, 0]], { fallback: "complete" }))).toBeNull();
  },
);
