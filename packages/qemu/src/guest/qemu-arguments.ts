// The command line of a guest. It has to be the same on both hosts in everything that the guest
// can see, whatever the two agents are told at different times: each device has an id and an
// address of its own here, and nothing is left to defaults that a user's configuration changes.
//
// Absent on purpose:
//   -no-reboot   it turns a reboot of the guest into the end of its QEMU, and a guest that
//                reboots during a migration is still a guest that is being migrated;
//   -daemonize   the agent starts QEMU in a session of its own, and sees how it ends;
//   -qmp unix:…  an `=` in the path would be taken for an option name; -chardev has `path=`.

import { assert } from "@vmferry/core";
import { protocolNode, qcow2Node, rawNode, type DiskBacking } from "../qmp/block-nodes.ts";
import {
  checkGuestDefinition,
  type Accelerator,
  type GuestDefinition,
  type GuestDisk,
} from "./guest-definition.ts";
import { GuestError } from "./guest-error.ts";

/** Absolute paths of everything that a guest's QEMU opens. */
export interface GuestArgumentPaths {
  readonly qmpSocket: string;
  readonly standby: string;
  readonly serialLog: string;
  /** Null where the definition boots from a disk. */
  readonly kernel: string | null;
  readonly initrd: string | null;
  /** By disk id. */
  readonly disks: ReadonlyMap<string, DiskBacking>;
}

export interface QemuArgumentsInput {
  readonly definition: GuestDefinition;
  readonly accel: Accelerator;
  readonly paths: GuestArgumentPaths;
  /** True: wait for a migration, and do not run when it has come. */
  readonly incoming: boolean;
  /** False only for a QEMU that was built without seccomp. */
  readonly sandbox?: boolean;
}

// Slots 0 to 3 hold what q35 and i440fx bring along, and leave room for what a later version adds;
// q35 has its south bridge in slot 31. The number of disks is limited so that the last is below it.
export const FIRST_DISK_SLOT = 4;

/** Throws `guest-definition-invalid`. */
export function qemuArguments(input: QemuArgumentsInput): string[] {
  const { definition, paths, incoming, sandbox = true } = input;
  checkGuestDefinition(definition);
  return [
    "-nodefaults",
    "-no-user-config",
    ...["-display", "none"],
    ...["-msg", "timestamp=on"],
    ...(sandbox ? sandboxArguments() : []),
    // A device that cannot migrate ends QEMU at once, rather than the migration much later.
    "-only-migratable",
    ...machineArguments(input),
    ...bootArguments(input),
    ...chardev("socket", "qmp0", paths.qmpSocket, "server=on,wait=off"),
    ...["-mon", "chardev=qmp0,mode=control"],
    ...chardev("file", "serial0", paths.serialLog, "append=on"),
    ...["-serial", "chardev:serial0"],
    ...definition.disks.flatMap((disk, index) => diskArguments(disk, index, paths)),
    // Always both: without -S a destination starts its guest as soon as it has loaded it, while
    // the source, if it never hears of that, starts it again.
    ...(incoming ? ["-S", "-incoming", "defer", ...standbyArguments(paths)] : []),
  ];
}

/** Of a guest that arrives: it may have to be taken up while its QEMU waits for a page. */
function standbyArguments({ standby }: GuestArgumentPaths): string[] {
  const path = escapeOptionValue(standby);
  return ["-chardev", `pipe,id=standby,path=${path}`, "-mon", "chardev=standby,mode=control"];
}

/** An option value, in which QEMU's parser reads two commas as one. */
export function escapeOptionValue(value: string): string {
  return value.replaceAll(",", ",,");
}

function sandboxArguments(): string[] {
  return ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"];
}

function machineArguments({ definition, accel }: QemuArgumentsInput): string[] {
  const { name, machine, cpu, vcpus, memoryBytes, uuid } = definition;
  return [
    ...["-name", `guest=${escapeOptionValue(name)}`],
    ...(uuid === undefined ? [] : ["-uuid", uuid]),
    // A core dump of QEMU must not hold the memory of its guest.
    ...["-machine", `${machine},accel=${accel},dump-guest-core=off`],
    ...["-cpu", cpu],
    ...["-smp", `cpus=${vcpus}`],
    ...["-m", `size=${memoryBytes}B`],
  ];
}

function bootArguments({ definition, paths }: QemuArgumentsInput): string[] {
  const { boot } = definition;
  if (boot === undefined) return [];
  assert(paths.kernel !== null, "a definition with a kernel comes with its path");
  assert(
    (boot.initrd === undefined) === (paths.initrd === null),
    "a definition with an initrd comes with its path",
  );
  // For a multiboot kernel, QEMU takes the value of -initrd for a list, and for a Linux kernel it
  // does not: no way of escaping a comma holds for both.
  if (paths.initrd?.includes(",") === true) {
    const reason = "must not have a comma in its path";
    throw new GuestError(`the guest's boot.initrd ${reason}`, {
      code: "guest-definition-invalid",
      field: "boot.initrd",
      reason,
    });
  }
  // QEMU takes these values as they are, so that nothing in them is escaped.
  return [
    ...["-kernel", paths.kernel],
    ...(paths.initrd === null ? [] : ["-initrd", paths.initrd]),
    ...(boot.cmdline === undefined ? [] : ["-append", boot.cmdline]),
  ];
}

function chardev(backend: string, id: string, path: string, options: string): string[] {
  return ["-chardev", `${backend},id=${id},path=${escapeOptionValue(path)},${options}`];
}

function diskArguments(
  { id, format }: GuestDisk,
  index: number,
  paths: GuestArgumentPaths,
): string[] {
  const backing = paths.disks.get(id);
  assert(backing !== undefined, `disk ${id} comes with what it stands on`);
  const address = `0x${(FIRST_DISK_SLOT + index).toString(16)}`;
  const raw = rawNode(id, backing.kind === "nbd" ? "nbd" : "file");
  const device = [
    `virtio-blk-pci,id=${id}-device,drive=${id},addr=${address}`,
    // Without it QEMU guesses one from the first sector, which is not there yet at a destination.
    "cyls=16383,heads=16,secs=63",
    // An I/O error stops the guest instead of reaching it: the agent is in the path of its disk, and
    // what the agent causes and can cure must not be seen by the guest's file system.
    "werror=stop,rerror=stop",
  ];
  return [
    ...["-blockdev", JSON.stringify(protocolNode(id, backing))],
    ...["-blockdev", JSON.stringify(format === "qcow2" ? qcow2Node(id) : raw)],
    ...["-device", device.join(",")],
  ];
}
