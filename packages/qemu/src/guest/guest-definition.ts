import { GuestError } from "./guest-error.ts";

export type RequestedAccelerator = "auto" | "kvm" | "tcg";
export type Accelerator = "kvm" | "tcg";

/** `copy` is moved by the agents, `shared` is the same file on both hosts, `scratch` starts empty. */
export type DiskMode = "copy" | "shared" | "scratch";

export interface GuestBoot {
  /** Names of files inside the image directory. */
  readonly kernel: string;
  readonly initrd?: string;
  readonly cmdline?: string;
}

export interface GuestDisk {
  readonly id: string;
  /** The name of a file inside the image directory. */
  readonly image: string;
  readonly format: "raw" | "qcow2";
  readonly mode: DiskMode;
}

/** A guest as `POST /v1/guests` describes it; the same on both hosts. */
export interface GuestDefinition {
  readonly name: string;
  readonly machine: string;
  readonly accel: RequestedAccelerator;
  readonly cpu: string;
  readonly vcpus: number;
  readonly memoryBytes: number;
  /** Without it the firmware boots from the first disk. */
  readonly boot?: GuestBoot;
  readonly disks: readonly GuestDisk[];
  readonly serial: "file";
  readonly uuid?: string;
}

const GUEST_NAME_CHARACTERS_MAX = 128;
const GUEST_VCPUS_MAX = 255;
const GUEST_DISKS_MAX = 24;
const GUEST_MEMORY_BYTES_MAX = 64 * 2 ** 40;

const MEBIBYTE = 2 ** 20;
const CMDLINE_CHARACTERS_MAX = 2047;

// A name is free text that is escaped wherever it goes. The others become part of option values
// that QEMU parses further, so that their alphabet leaves nothing to escape.
const MACHINE = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const CPU = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(,[a-z0-9][a-z0-9._-]{0,63}=(on|off)){0,64}$/;
// The longest node name, `<id>-file`, has to stay within the 31 characters that QEMU allows.
const DISK_ID = /^[A-Za-z][A-Za-z0-9_-]{0,23}$/;
const UUID = /^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/;
const CONTROL_CHARACTER = /\p{Cc}/u;

/** Throws `guest-definition-invalid` for what could not become, or must not become, arguments. */
export function checkGuestDefinition(definition: GuestDefinition): void {
  const { name, machine, accel, cpu, vcpus, memoryBytes, boot, disks, uuid } = definition;
  demand("name", isText(name, GUEST_NAME_CHARACTERS_MAX), "1 to 128 printable characters");
  demand("machine", MACHINE.test(machine), "the name of a machine type");
  demand("accel", ["auto", "kvm", "tcg"].includes(accel), "auto, kvm or tcg");
  demand("cpu", CPU.test(cpu), "a CPU model, with feature=on or feature=off after commas");
  demand("vcpus", isWhole(vcpus, 1, GUEST_VCPUS_MAX), `1 to ${GUEST_VCPUS_MAX}`);
  demand(
    "memoryBytes",
    isWhole(memoryBytes, MEBIBYTE, GUEST_MEMORY_BYTES_MAX) && memoryBytes % MEBIBYTE === 0,
    "a whole number of MiB",
  );
  demand("uuid", uuid === undefined || UUID.test(uuid), "a UUID");
  demand("serial", (definition.serial as string) === "file", "file");
  if (boot?.cmdline !== undefined) {
    const fits = boot.cmdline === "" || isText(boot.cmdline, CMDLINE_CHARACTERS_MAX);
    demand("boot.cmdline", fits, `at most ${CMDLINE_CHARACTERS_MAX} printable characters`);
  }
  demand("disks", disks.length <= GUEST_DISKS_MAX, `at most ${GUEST_DISKS_MAX}`);
  for (const [index, disk] of disks.entries()) {
    demand(`disks[${index}].id`, DISK_ID.test(disk.id), "a letter, then letters, digits, _ or -");
    demand(`disks[${index}].format`, ["raw", "qcow2"].includes(disk.format), "raw or qcow2");
    const first = disks.findIndex(({ id }) => id === disk.id);
    demand(`disks[${index}].id`, first === index, "unlike the id of any other disk");
  }
}

function demand(field: string, holds: boolean, expectation: string): void {
  if (holds) return;
  throw new GuestError(`the guest's ${field} has to be ${expectation}`, {
    code: "guest-definition-invalid",
    field,
    reason: `has to be ${expectation}`,
  });
}

function isText(text: string, charactersMax: number): boolean {
  return text.length > 0 && text.length <= charactersMax && !CONTROL_CHARACTER.test(text);
}

function isWhole(value: number, min: number, max: number): boolean {
  return Number.isSafeInteger(value) && value >= min && value <= max;
}
