import { Compile } from "typebox/compile";
import { expect, test } from "vitest";
import { fillGuestDefinition, GuestDefinitionSchema } from "./guest-definition.ts";

const validator = Compile(GuestDefinitionSchema);
const minimal = {
  name: "web1",
  machine: "pc-q35-7.2",
  memoryBytes: 512 * 1024 ** 2,
  boot: { kernel: "vmlinuz" },
};
const disk = { id: "disk0", image: "web1.raw" };

test("the definition of the documentation is valid", () => {
  const documented = {
    ...minimal,
    accel: "auto",
    cpu: "qemu64",
    vcpus: 1,
    boot: { kernel: "vmlinuz", initrd: "initrd.img", cmdline: "console=ttyS0" },
    disks: [{ id: "disk0", image: "web1.raw", format: "raw", mode: "copy" }],
    serial: "file",
  };
  expect(validator.Check(documented)).toBe(true);
  expect(fillGuestDefinition(documented as never)).toEqual(documented);
});

test("what is left out gets its default, and the input is not touched", () => {
  const input = { ...minimal, disks: [disk] };
  expect(validator.Check(input)).toBe(true);
  expect(fillGuestDefinition(input)).toEqual({
    ...minimal,
    accel: "auto",
    cpu: "qemu64",
    vcpus: 1,
    disks: [{ ...disk, format: "raw", mode: "copy" }],
    serial: "file",
  });
  expect(input).toEqual({ ...minimal, disks: [{ id: "disk0", image: "web1.raw" }] });
});

test.each([
  ["an unknown property", { ...minimal, memory: 1 }],
  ["an unknown property of a disk", { ...minimal, disks: [{ ...disk, cache: "none" }] }],
  ["no memory", { ...minimal, memoryBytes: undefined }],
  ["memory as text", { ...minimal, memoryBytes: "536870912" }],
  ["memory that is not whole pages", { ...minimal, memoryBytes: 536_870_913 }],
  ["memory below 16 MiB", { ...minimal, memoryBytes: 8 * 1024 ** 2 }],
  ["memory above 16 TiB", { ...minimal, memoryBytes: 17 * 1024 ** 4 }],
  ["no vCPU", { ...minimal, vcpus: 0 }],
  ["a name that is a path", { ...minimal, name: "../web1" }],
  ["a name with a line break behind it", { ...minimal, name: "web1\n" }],
  ["an empty name", { ...minimal, name: "" }],
  ["a machine with a second option", { ...minimal, machine: "q35,accel=tcg" }],
  ["a CPU with a blank", { ...minimal, cpu: "qemu64 -S" }],
  ["a command line with a line break", { ...minimal, boot: { kernel: "k", cmdline: "a\nb" } }],
  ["a command line of 2049", { ...minimal, boot: { kernel: "k", cmdline: "a".repeat(2049) } }],
  ["33 disks", { ...minimal, disks: Array.from({ length: 33 }, () => disk) }],
  ["a disk that begins with a digit", { ...minimal, disks: [{ ...disk, id: "0disk" }] }],
])("%s is refused", (_, definition) => {
  expect(validator.Check(definition)).toBe(false);
});

test.each([
  "../vmlinuz",
  "/boot/vmlinuz",
  "a/../../b",
  "a//b",
  "a/",
  ".hidden",
  "a,file=/etc/passwd",
  "a b",
  "a\0b",
  "json:{}",
  "ä",
  "a".repeat(256),
  "",
])("the image name %j is refused: it could leave the image directory", (kernel) => {
  expect(validator.Check({ ...minimal, boot: { kernel } })).toBe(false);
});

test("an image in a directory of the image directory is accepted", () => {
  expect(validator.Check({ ...minimal, boot: { kernel: "debian-13/vmlinuz-6.12.0+1" } })).toBe(
    true,
  );
});
