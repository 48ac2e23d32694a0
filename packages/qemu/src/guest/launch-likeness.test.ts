import { expect, test } from "vitest";
import type { DescribedQemu } from "./describe-qemu.ts";
import { launchDifferences } from "./launch-likeness.ts";

/** As QEMU 10 describes a q35 with one disk; what a test is about is given. */
function described({
  device = "/machine/peripheral/dd",
  type = "virtio-blk-pci",
  bus = 0,
  slot = 4,
  part = 0,
  description = "SCSI controller",
  ...change
}: Partial<DescribedQemu> & {
  device?: string | null;
  type?: string;
  bus?: number;
  slot?: number;
  part?: number;
  description?: string;
} = {}): DescribedQemu {
  const name = device?.slice(device.lastIndexOf("/") + 1) ?? "";
  const board = ["0.0 Host bridge", "31.0 ISA bridge", "31.2 SATA controller", "31.3 SMBus"];
  const ofBoard = board.map((text) => {
    const [, at = "", function_ = "", name = ""] = /^(\d+)\.(\d) (.+)$/.exec(text) ?? [];
    return { bus: 0, slot: Number(at), function: Number(function_), qdevId: "", description: name };
  });
  const qdevId = name === "dd" ? name : "";
  const disk = { id: "disk0", driver: "raw", filename: "/a.raw", sizeBytes: 2 ** 20, device };
  return {
    ...{ machine: "pc-q35-10.0", memoryName: "pc.ram", pluggedBytes: 0, serialPorts: 1 },
    ...{ otherDrives: [], disks: [disk] },
    devices: device === null ? [] : [{ id: name, type }],
    pci: [...ofBoard, { bus, slot, function: part, qdevId, description }],
    ...change,
  } as unknown as DescribedQemu;
}

test("a QEMU as one would be launched has no differences", () => {
  expect(launchDifferences(described())).toEqual([]);
});

test("a disk that is elsewhere is told with where it is, and where it has to be", () => {
  expect(launchDifferences(described({ slot: 6 }))).toEqual([
    "its disk disk0 (dd) is in slot 0x6 of PCI bus 0: it has to be in slot 0x4 of the first PCI bus",
  ]);
  const [text] = launchDifferences(described({ bus: 1, part: 1 }));
  expect(text).toContain("is in slot 0x4, function 1, of PCI bus 1:");
});

test("a disk whose device has no id is told so, once, and what it has to have", () => {
  const anonymous = { device: "/machine/peripheral-anon/device[0]", slot: 4 };
  expect(launchDifferences(described(anonymous))).toEqual([
    "the virtio-blk-pci of its disk disk0 has no id, without which QEMU does not tell where it is: " +
      "it has to have one (id=…), and to be in slot 0x4 of the first PCI bus (addr=0x4)",
  ]);
});

test("a card that nobody has switched off is told of beside such a disk", () => {
  const anonymous = { device: "/machine/peripheral-anon/device[0]" };
  const card = { ...anonymous, slot: 2, description: "Ethernet controller" };
  expect(launchDifferences(described(card))).toContain("it has a Ethernet controller in slot 0x2");
});

test("a disk of another kind is told of with its kind", () => {
  const texts = launchDifferences(described({ type: "scsi-hd" }));
  expect(texts).toContain("the device of its disk disk0 is scsi-hd: it has to be a virtio-blk-pci");
  expect(launchDifferences(described({ device: null }))[0]).toContain("disk0 has no device");
});

test.each<[string, Partial<DescribedQemu>, string]>([
  ["machine type", { machine: "microvm" }, "microvm, neither pc-q35 nor pc-i440fx"],
  ["drive without a disk", { otherDrives: ["cd0"] }, "(cd0)"],
  ["plugged memory", { pluggedBytes: 2 ** 20 }, "memory was plugged"],
  ["name of its memory", { memoryName: "ram" }, "called ram"],
  ["serial ports", { serialPorts: 2 }, "2 serial ports instead of one"],
])("another %s is a difference", (_, change, text) => {
  expect(launchDifferences(described(change)).join()).toContain(text);
});
