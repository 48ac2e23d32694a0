import { expect, test } from "vitest";
import type { QueryStatus } from "@vmferry/qemu";
import { adoptedFate } from "./adopted-fate.ts";
import type { GuestStage } from "./guest-record.ts";

const stages: readonly GuestStage[] = ["incoming", "prepared", "owned", "handed-off"];

function fate(stage: GuestStage, status: QueryStatus["status"]): string {
  return adoptedFate(stage, { status, running: status === "running" });
}

test.each(stages)("a guest that runs is kept, whatever was written down (%s)", (stage) => {
  expect(fate(stage, "running")).toBe("keep");
});

test.each([
  // Nothing was promised: the source has the guest.
  ["incoming", "inmigrate", "kill"],
  ["incoming", "paused", "kill"],
  ["incoming", "postmigrate", "kill"],
  // The other host may have it, or we may: not ours to say.
  ["prepared", "inmigrate", "in-doubt"],
  ["prepared", "paused", "in-doubt"],
  ["handed-off", "postmigrate", "in-doubt"],
  ["handed-off", "paused", "in-doubt"],
  // SHUT was forwarded and no token sent: only here it can go on.
  ["owned", "postmigrate", "resume"],
  // Somebody paused it, or it has stopped by itself.
  ["owned", "paused", "keep"],
  ["owned", "shutdown", "keep"],
  ["owned", "internal-error", "keep"],
] as const)("a guest that is %s and stands still as %s: %s", (stage, status, expected) => {
  expect(fate(stage, status)).toBe(expected);
});

test("a guest that the other host may have is neither started nor killed", () => {
  const statuses = ["paused", "postmigrate", "inmigrate", "shutdown", "finish-migrate"] as const;
  for (const stage of ["prepared", "handed-off"] as const) {
    for (const status of statuses) expect(fate(stage, status)).toBe("in-doubt");
  }
});
