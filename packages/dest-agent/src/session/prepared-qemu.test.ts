import { expect, test } from "vitest";
import type { ControlMessageOf, GuestDefinition } from "@vmferry/protocol";
import { fitPrepared } from "./prepared-qemu.ts";

const MIB = 1024 * 1024;
const definition: GuestDefinition = {
  ...{ name: "web1", machine: "pc-q35-10.0", accel: "tcg", cpu: "qemu64,vmx=off", vcpus: 2 },
  ...{ memoryBytes: 512 * MIB, serial: "file" },
  disks: [
    { id: "a", image: "a.qcow2", format: "qcow2", mode: "copy" },
    { id: "b", image: "b.raw", format: "raw", mode: "copy" },
  ],
};
const sizes = { blockBytes: 65_536, dataBytes: 0, proof: null };
const offer: ControlMessageOf<"offer"> = {
  ...{ kind: "offer", migrationId: "m1", epoch: 8, guest: definition as never, accel: "tcg" },
  ...{ uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8", qemuVersion: "10.0.2", bulkConnections: 1 },
  disks: [
    { ...sizes, sizeBytes: 64 * MIB },
    { ...sizes, sizeBytes: 32 * MIB },
  ],
  ...{ hashSeed: "00112233445566ff", incarnation: "s1", postCopy: false, witness: null },
};

function prepared(
  change: Partial<GuestDefinition> = {},
  diskBytes: Record<string, number> = { x: 64 * MIB, y: 32 * MIB },
): Parameters<typeof fitPrepared>[1] {
  const disks = Object.keys(diskBytes).map((id) => ({
    ...{ id, image: `${id}.raw`, format: "raw" as const, mode: "copy" as const },
  }));
  return {
    definition: { ...definition, cpu: "qemu64", disks, ...change },
    attachment: { qmp: "/run/q.sock", launchRefusal: "", diskBytes },
    process: { pid: 4711 },
  };
}

test("disks of other names are taken in their order, over the images that are there", () => {
  const { definition: fits, attachment } = fitPrepared(offer, prepared());
  expect(fits).toMatchObject({ name: "web1", cpu: "qemu64,vmx=off", memoryBytes: 512 * MIB });
  expect(fits.disks).toEqual([
    { id: "a", image: "x.raw", format: "raw", mode: "copy" },
    { id: "b", image: "y.raw", format: "raw", mode: "copy" },
  ]);
  expect(attachment.diskBytes).toEqual({ a: 64 * MIB, b: 32 * MIB });
});

test("and those of the same names by their names", () => {
  const { definition: fits } = fitPrepared(offer, prepared({}, { b: 32 * MIB, a: 64 * MIB }));
  expect(fits.disks.map(({ id, image }) => `${id} ${image}`)).toEqual(["a a.raw", "b b.raw"]);
});

test.each<[string, Parameters<typeof prepared>, string]>([
  ["memory", [{ memoryBytes: MIB }], "memoryBytes is 1048576 and has to be 536870912"],
  ["machine", [{ machine: "pc-q35-9.2" }], "machine is pc-q35-9.2 and has to be pc-q35-10.0"],
  ["processors", [{ vcpus: 1 }], "vcpus is 1 and has to be 2"],
  ["processor", [{ cpu: "Skylake" }], "cpu is Skylake and has to be qemu64"],
  ["accelerator", [{ accel: "kvm" }], "accel is kvm and has to be tcg"],
  ["disks", [{}, { x: 64 * MIB }], "the number of disks is 1 and has to be 2"],
  ["sizes", [{}, { x: 64 * MIB, y: MIB }], "the size of disk b (y.raw) is 1048576"],
])("another %s is refused, and named", (_, change, text) => {
  expect(() => fitPrepared(offer, prepared(...change))).toThrow(text);
});
