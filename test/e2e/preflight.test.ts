import { readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { expect, it } from "vitest";
import type { Check, PreflightReport } from "@vmferry/protocol";
import { expectMoves } from "../expect-guest.ts";
import type { MoveOptions, MovingGuest } from "../moving-guest.ts";
import { useLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const DOCUMENT = readFileSync(new URL("../../docs/preflight.md", import.meta.url), "utf8");
const test = useLab();

async function preflight(
  guest: MovingGuest,
  options: MoveOptions = {},
): Promise<ReadonlyMap<string, Check>> {
  const request = { guest: guest.name, destination: "dest", ...options };
  const path = "/v1/migrations/preflight";
  const { checks } = await test.lab.source.api.request<PreflightReport>("POST", path, request);
  return new Map(checks.map((check) => [check.name, check]));
}

it("a guest that could move fails no check, and all checks are those of the document", async () => {
  await test.lab.makeDisk("looked-at.raw", 16 * MIB, { fill: 0.5 });
  const guest = await test.boot({ disks: [{ id: "disk0", image: "looked-at.raw" }] });
  const imagesBefore = await readdir(test.lab.imagePath("dest"));
  const checks = await preflight(guest);
  const bad = [...checks.values()].filter(({ status }) => status === "fail" || status === "warn");
  expect(bad).toEqual([]);
  for (const name of ["cpu-features", "machine-type", "images", "dest-space", "devices", "disks"]) {
    expect(checks.get(name), name).toMatchObject({ status: "pass" });
  }
  const documented = [...DOCUMENT.matchAll(/^\| `([a-z-]+)` \|[^|]*\|[^|]*\|[^|]*\|$/gm)];
  expect([...checks.keys()].sort()).toEqual(documented.map(([, name]) => name).sort());
  // Nothing was begun, and nothing is left.
  expect(await readdir(test.lab.imagePath("dest"))).toEqual(imagesBefore);
  expect(await readdir(test.lab.imagePath("source"))).not.toContainEqual(
    expect.stringContaining("proof"),
  );
  expect(await test.lab.source.api.migrations()).toEqual([]);
  expect(guest.qemus("dest")).toEqual([]);
  await expectMoves(guest);
});

it("an image in the place of a disk fails before anything is begun", async () => {
  await test.lab.makeDisk("taken.raw", 16 * MIB, { fill: 0.5 });
  const guest = await test.boot({ disks: [{ id: "disk0", image: "taken.raw", mode: "shared" }] });
  const checks = await preflight(guest);
  expect(checks.get("shared-images")).toMatchObject({
    status: "fail",
    detail: expect.stringContaining("taken.raw") as string,
  });
  expect(checks.get("images")).toMatchObject({ status: "skip" });
});
