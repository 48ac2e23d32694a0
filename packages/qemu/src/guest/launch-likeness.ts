/**
 * Would a QEMU that is launched from a definition be the same machine as this one? Its devices have
 * to be the same at the same addresses, and its memory has to go by the same name.
 */
import type { PciDevice } from "../qmp/qmp-results.ts";
import type { DescribedDisk, DescribedQemu } from "./describe-qemu.ts";
import { FIRST_DISK_SLOT } from "./qemu-arguments.ts";

/** `slot.function` of what the machines bring along themselves. */
const BOARD: readonly { readonly machine: RegExp; readonly addresses: readonly string[] }[] = [
  { machine: /^pc-q35-/, addresses: ["0.0", "31.0", "31.2", "31.3"] },
  { machine: /^pc-i440fx-/, addresses: ["0.0", "1.0", "1.1", "1.3"] },
];
const MEMORY_NAME = "pc.ram";
const DISK_TYPE = "virtio-blk-pci";
/** What `query-pci` calls one. */
const DISK_DESCRIPTION = "SCSI controller";
const SERIAL_TYPE = "isa-serial";
/** Devices that were given no id; QEMU numbers them. */
const ANONYMOUS = "/machine/peripheral-anon/";

/** What speaks against it; empty where nothing does. */
export function launchDifferences(qemu: DescribedQemu): readonly string[] {
  const { machine, devices, disks, otherDrives, pluggedBytes, memoryName, serialPorts } = qemu;
  const board = BOARD.find(({ machine: pattern }) => pattern.test(machine));
  if (board === undefined) return [`its machine type is ${machine}, neither pc-q35 nor pc-i440fx`];
  const others = devices.filter(({ type }) => type !== DISK_TYPE && type !== SERIAL_TYPE);
  return [
    ...others.map(({ id, type }) => `it has a ${type} (${id})`),
    ...disks.flatMap((disk, index) => misplaced(qemu, disk, FIRST_DISK_SLOT + index)),
    ...unexpected(qemu, board.addresses),
    ...otherDrives.map((drive) => `it has a drive without a disk of its own (${drive})`),
    ...(pluggedBytes > 0 ? ["memory was plugged into it"] : []),
    ...(memoryName === MEMORY_NAME ? [] : [`its memory is called ${memoryName}`]),
    ...(serialPorts === 1 ? [] : [`it has ${serialPorts} serial ports instead of one`]),
  ];
}

function misplaced(
  { pci, devices }: DescribedQemu,
  { id: disk, device }: DescribedDisk,
  slot: number,
): readonly string[] {
  const right = `in slot ${hex(slot)} of the first PCI bus`;
  const name = device?.slice(device.lastIndexOf("/") + 1) ?? "";
  const type = devices.find(({ id }) => id === name)?.type;
  if (device === null) return [`its disk ${disk} has no device: it has to have a ${DISK_TYPE}`];
  if (type !== DISK_TYPE) {
    return [`the device of its disk ${disk} is ${type ?? device}: it has to be a ${DISK_TYPE}`];
  }
  if (isAnonymous(device)) {
    return [
      `the ${DISK_TYPE} of its disk ${disk} has no id, without which QEMU does not tell where it ` +
        `is: it has to have one (id=…), and to be ${right} (addr=${hex(slot)})`,
    ];
  }
  const where = pci.find(({ qdevId }) => qdevId === name);
  if (where?.bus === 0 && where.slot === slot && where.function === 0) return [];
  const is = where === undefined ? "elsewhere" : `in ${placeOf(where)}`;
  return [`its disk ${disk} (${name}) is ${is}: it has to be ${right}`];
}

function placeOf({ bus, slot, function: part }: PciDevice): string {
  return `slot ${hex(slot)}${part === 0 ? "" : `, function ${part},`} of PCI bus ${bus}`;
}

/** That came without `-device`: a display or a network card that nobody has switched off. */
function unexpected(
  { pci, disks }: DescribedQemu,
  addresses: readonly string[],
): readonly string[] {
  const isSaid = disks.some(({ device }) => device !== null && isAnonymous(device));
  return pci
    .filter(({ qdevId, bus, slot, function: part, description }) => {
      const isBoard = bus === 0 && addresses.includes(`${slot}.${part}`);
      return qdevId === "" && !isBoard && !(isSaid && description === DISK_DESCRIPTION);
    })
    .map(({ slot, description }) => `it has a ${description} in slot ${hex(slot)}`);
}

function isAnonymous(device: string): boolean {
  return device.startsWith(ANONYMOUS);
}

function hex(slot: number): string {
  return `0x${slot.toString(16)}`;
}
