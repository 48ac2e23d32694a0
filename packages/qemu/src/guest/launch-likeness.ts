/**
 * Would a QEMU that is launched from a definition be the same machine as this one? Its devices have
 * to be the same at the same addresses, and its memory has to go by the same name.
 */
import type { DescribedQemu } from "./describe-qemu.ts";
import { FIRST_DISK_SLOT } from "./qemu-arguments.ts";

/** `slot.function` of what the machines bring along themselves. */
const BOARD: readonly { readonly machine: RegExp; readonly addresses: readonly string[] }[] = [
  { machine: /^pc-q35-/, addresses: ["0.0", "31.0", "31.2", "31.3"] },
  { machine: /^pc-i440fx-/, addresses: ["0.0", "1.0", "1.1", "1.3"] },
];
const MEMORY_NAME = "pc.ram";
const DISK_TYPE = "virtio-blk-pci";
const SERIAL_TYPE = "isa-serial";

/** What speaks against it; empty where nothing does. */
export function launchDifferences(qemu: DescribedQemu): readonly string[] {
  const { machine, devices, disks, otherDrives, pluggedBytes, memoryName, serialPorts } = qemu;
  const board = BOARD.find(({ machine: pattern }) => pattern.test(machine));
  if (board === undefined) return [`its machine type is ${machine}, neither pc-q35 nor pc-i440fx`];
  const others = devices.filter(({ type }) => type !== DISK_TYPE && type !== SERIAL_TYPE);
  return [
    ...others.map(({ id, type }) => `it has a ${type} (${id})`),
    ...disks.flatMap((disk, index) => misplaced(qemu, disk.device, FIRST_DISK_SLOT + index)),
    ...unexpected(qemu, board.addresses),
    ...otherDrives.map((drive) => `it has a drive without a disk of its own (${drive})`),
    ...(pluggedBytes > 0 ? ["memory was plugged into it"] : []),
    ...(memoryName === MEMORY_NAME ? [] : [`its memory is called ${memoryName}`]),
    ...(serialPorts === 1 ? [] : [`it has ${serialPorts} serial ports instead of one`]),
  ];
}

function misplaced(
  { pci, devices }: DescribedQemu,
  device: string | null,
  slot: number,
): readonly string[] {
  const id = device?.slice(device.lastIndexOf("/") + 1) ?? "";
  const where = pci.find(({ qdevId }) => qdevId === id);
  const isVirtio = devices.some((each) => each.id === id && each.type === DISK_TYPE);
  if (!isVirtio) return [`its disk ${device ?? "without a device"} is no ${DISK_TYPE} with an id`];
  if (where?.bus === 0 && where.slot === slot && where.function === 0) return [];
  return [`its disk ${id} is not in slot 0x${slot.toString(16)} of the first PCI bus`];
}

/** That came without `-device`: a display or a network card that nobody has switched off. */
function unexpected({ pci }: DescribedQemu, addresses: readonly string[]): readonly string[] {
  return pci
    .filter(({ qdevId, bus, slot, function: part }) => {
      const isBoard = bus === 0 && addresses.includes(`${slot}.${part}`);
      return qdevId === "" && !isBoard;
    })
    .map(({ slot, description }) => `it has a ${description} in slot 0x${slot.toString(16)}`);
}
