/**
 * A QEMU that somebody else started becomes a guest of this agent: found, asked what it is, and
 * compared with what the request says. Nothing of it is changed, and whatever speaks against moving
 * it is said now rather than in the middle of a migration.
 */
import { realpath } from "node:fs/promises";
import { isAbsolute, relative, sep } from "node:path";
import { messageOf } from "@vmferry/core";
import type { FieldError, GuestAttach, GuestDefinition, GuestDisk } from "@vmferry/protocol";
import {
  attachQemu,
  describeQemu,
  guestRefusals,
  launchDifferences,
  QmpError,
  type DescribedDisk,
  type DescribedQemu,
  type GuestProcess,
} from "@vmferry/qemu";
import { ProblemError } from "../problem-error.ts";
import { refuseMarkedImages } from "./image-marks.ts";

/** Beside the definition, what is known of a guest whose QEMU somebody else started. */
export interface Attachment {
  /** The path of its monitor's socket. */
  readonly qmp: string;
  /** Why no QEMU can be launched for it elsewhere; empty where one can. */
  readonly launchRefusal: string;
  /** What the guest sees of each disk, by id. */
  readonly diskBytes: Readonly<Record<string, number>>;
}

/** Which QEMUs an agent attaches to: those whose guests leave, or those that wait for one. */
export type AttachPort =
  | {
      readonly attaching: "running";
      /**
       * The guest is this agent's from now on: with the epoch in which it is. Rejects with
       * `guest-in-doubt` where that is not known.
       */
      takeOver(identity: { readonly guest: string; readonly uuid: string }): Promise<number>;
    }
  | { readonly attaching: "prepared" };

/** `running`: to be moved away. `prepared`: its QEMU waits for a guest. */
export type Attaching = AttachPort["attaching"];

export interface AttachedQemu {
  readonly process: GuestProcess;
  readonly definition: GuestDefinition;
  readonly accel: "kvm" | "tcg";
  /** Of the guest, as it sees it; null where it has none. */
  readonly uuid: string | null;
  readonly running: boolean;
  readonly attachment: Attachment;
}

export interface AttachGuestOptions {
  readonly request: GuestAttach;
  readonly attaching: Attaching;
  /** Of the guest alone. */
  readonly directory: string;
  readonly imageDir: string;
}

const ANSWER_MS_MAX = 3000;
/** What may be on: the agent sets these itself, or they change nothing that travels. */
const CAPABILITIES = [
  ...["return-path", "events", "pause-before-switchover", "late-block-activate"],
  ...["auto-converge", "zero-blocks", "validate-uuid"],
];
const MIB = 1024 ** 2;
const DISK_ID = /^[a-zA-Z][a-zA-Z0-9_-]{0,23}$/;
const IMAGE = /^[a-zA-Z0-9][a-zA-Z0-9_.+-]*(\/[a-zA-Z0-9][a-zA-Z0-9_.+-]*)*$/;

/**
 * Rejects with `monitor-not-usable`, `guest-not-attachable`, and the codes of `guestRefusals` and
 * `refuseMarkedImages`.
 */
export async function attachGuest(options: AttachGuestOptions): Promise<AttachedQemu> {
  const { request, directory, attaching, imageDir } = options;
  const qmpPath = request.attach.qmp;
  const process = await attachQemu({ qmpPath, directory, timeoutMs: ANSWER_MS_MAX });
  try {
    const qemu = await describeQemu(process.qmp);
    refuseState(qemu, attaching, process.pid);
    await refuseOtherThanSaid(request, qemu);
    const disks = await disksOf(qemu, options);
    await refuseMarkedImages(disks, { imageDir, waiting: attaching === "prepared" });
    const boot = request.boot ?? (await bootOf(qemu, imageDir));
    const definition: GuestDefinition = {
      name: request.name,
      machine: qemu.machine,
      accel: qemu.accel,
      cpu: request.cpu ?? qemu.cpuModel,
      vcpus: qemu.vcpus,
      memoryBytes: qemu.memoryBytes,
      ...(boot === null ? {} : { boot }),
      disks,
      serial: "file",
    };
    const { accel } = qemu;
    const qemuVersion = process.qmp.version;
    const [refusal] = guestRefusals({ definition, accel, qemuVersion });
    if (refusal !== undefined) throw refusal;
    const sizes = qemu.disks.map(({ id, sizeBytes }) => [id, sizeBytes] as const);
    const attachment = {
      qmp: qmpPath,
      launchRefusal: launchRefusalOf(request, qemu, boot !== null),
      diskBytes: Object.fromEntries(sizes),
    };
    const { uuid, status } = qemu;
    return { process, definition, accel, uuid, running: status.running, attachment };
  } catch (error) {
    await process.detach();
    // What it is asked has an answer in every QEMU that this project knows.
    if (error instanceof QmpError) throw unfit(`its QEMU did not answer: ${messageOf(error)}`);
    throw error;
  }
}

function refuseState(qemu: DescribedQemu, attaching: Attaching, pid: number): void {
  const { status, migration, blockedReasons, capabilities } = qemu;
  const is = `the QEMU (process ${pid}) is ${status.status}`;
  if (attaching === "prepared") {
    if (status.status !== "inmigrate" || migration !== "none") {
      throw unfit(
        `${is}, and a dest agent attaches only to one that waits for a migration: start it with ` +
          "-S -incoming defer",
      );
    }
  } else if (["inmigrate", "prelaunch"].includes(status.status)) {
    throw unfit(
      `${is}: its guest has never run. Start the guest first; a QEMU that waits for a migration is ` +
        "for a dest agent to attach",
    );
  } else if (
    ["postmigrate", "finish-migrate", "shutdown", "internal-error"].includes(status.status)
  ) {
    throw unfit(`${is}: its guest has left, or has ended, and is not to be moved`);
  }
  if (!["none", "completed", "failed", "cancelled"].includes(migration)) {
    throw unfit(
      `somebody else migrates it (${migration}): wait until that has ended, or cancel it`,
    );
  }
  const others = capabilities.filter((name) => !CAPABILITIES.includes(name));
  if (others.length > 0) {
    throw unfit(
      `the migration capability ${others.join(", ")} is on, with which its stream is another; ` +
        "switch it off (migrate-set-capabilities)",
    );
  }
  if (blockedReasons.length > 0) {
    throw unfit(`QEMU will not migrate it: ${blockedReasons.join("; ")}. Unplug what it names`);
  }
}

/** What the request says has to be what QEMU says: it may be another guest that was meant. */
async function refuseOtherThanSaid(request: GuestAttach, qemu: DescribedQemu): Promise<void> {
  const { name, machine, accel, vcpus, memoryBytes, cpu } = request;
  const errors: FieldError[] = [];
  const compare = <T>(field: string, said: T | undefined, is: T): void => {
    if (said !== undefined && said !== is) {
      errors.push({ field, detail: `is ${String(is)} in QEMU, not ${String(said)}` });
    }
  };
  compare("name", qemu.name === null ? undefined : name, qemu.name ?? name);
  compare("machine", machine, qemu.machine);
  compare("accel", accel, qemu.accel);
  compare("vcpus", vcpus, qemu.vcpus);
  compare("memoryBytes", memoryBytes, qemu.memoryBytes);
  if (cpu !== undefined) errors.push(...(await cpuErrors(cpu, qemu)));
  for (const [index, { id }] of (request.disks ?? []).entries()) {
    if (qemu.disks.some((disk) => disk.id === id)) continue;
    const known = qemu.disks.map((disk) => disk.id).join(", ") || "none";
    errors.push({ field: `disks.${index}.id`, detail: `is no disk of it; it has ${known}` });
  }
  if (qemu.memoryBytes % MIB !== 0) {
    errors.push({ field: "memoryBytes", detail: `is ${qemu.memoryBytes}, no whole number of MiB` });
  }
  const [first] = errors;
  if (first === undefined) return;
  const text = `this QEMU is not what the request says: ${first.field} ${first.detail}`;
  throw new ProblemError(text, { code: "guest-not-attachable", errors });
}

async function cpuErrors(cpu: string, qemu: DescribedQemu): Promise<FieldError[]> {
  const [model, ...features] = cpu.split(",");
  if (model !== qemu.cpuModel) {
    return [{ field: "cpu", detail: `is ${qemu.cpuModel} in QEMU, not ${model ?? ""}` }];
  }
  const errors: FieldError[] = [];
  for (const feature of features) {
    const [name = "", wanted] = feature.split("=");
    const is = await qemu.cpuFeature(name);
    if (is === null) errors.push({ field: "cpu", detail: `has no feature ${name} in QEMU` });
    else if (is !== (wanted === "on")) {
      errors.push({ field: "cpu", detail: `has ${name}=${is ? "on" : "off"} in QEMU` });
    }
  }
  return errors;
}

function launchRefusalOf(request: GuestAttach, qemu: DescribedQemu, boots: boolean): string {
  const reasons = [...launchDifferences(qemu)];
  if (request.cpu === undefined) {
    reasons.push("cpu was not given when it was attached, and QEMU does not tell its features");
  }
  if (qemu.kernel !== "" && !boots) {
    reasons.push(`its kernel (${qemu.kernel}) or initrd is not inside VMFERRY_IMAGE_DIR`);
  }
  return reasons.join("; ").slice(0, 1000);
}

async function bootOf(
  { kernel, initrd, cmdline }: DescribedQemu,
  imageDir: string,
): Promise<NonNullable<GuestDefinition["boot"]> | null> {
  if (kernel === "") return null;
  const kernelName = await nameInside(imageDir, kernel);
  const initrdName = initrd === "" ? null : await nameInside(imageDir, initrd);
  if (kernelName === null || (initrd !== "" && initrdName === null)) return null;
  return {
    kernel: kernelName,
    ...(initrdName === null ? {} : { initrd: initrdName }),
    ...(cmdline === "" ? {} : { cmdline }),
  };
}

async function disksOf(
  qemu: DescribedQemu,
  { request, imageDir, attaching }: AttachGuestOptions,
): Promise<GuestDisk[]> {
  const disks: GuestDisk[] = [];
  for (const disk of qemu.disks) {
    const { id, driver, filename } = disk;
    if (!DISK_ID.test(id)) {
      throw unfit(
        `its disk on ${filename} has ${id === "" ? "no node name" : `the node name ${id}`}: name ` +
          "the node with 1 to 24 letters, digits, - or _ (-blockdev node-name=…)",
      );
    }
    const image = await imageOf(disk, imageDir);
    const mode = request.disks?.find((said) => said.id === id)?.mode ?? "copy";
    const isRaw = ["raw", "file", "host_device"].includes(driver);
    if (attaching === "prepared" && !isRaw) {
      throw unfit(
        `its disk ${id} is ${driver}: what arrives is a raw image; give the prepared QEMU ` +
          "a raw image of the disk's size",
      );
    }
    disks.push({ id, image, format: isRaw ? "raw" : "qcow2", mode });
  }
  return disks;
}

async function imageOf({ id, filename }: DescribedDisk, imageDir: string): Promise<string> {
  const name = await nameInside(imageDir, filename);
  if (name !== null) return name;
  throw unfit(
    `its disk ${id} is ${filename}, which is no image inside VMFERRY_IMAGE_DIR (${imageDir}): set ` +
      "that to the directory of its images",
  );
}

/** Null for what lies elsewhere, is not there, or has a name that no definition can have. */
async function nameInside(imageDir: string, path: string): Promise<string | null> {
  if (!isAbsolute(path)) return null;
  try {
    const name = relative(await realpath(imageDir), await realpath(path));
    const isInside = name !== "" && name !== ".." && !name.startsWith(`..${sep}`);
    return isInside && name.length <= 255 && IMAGE.test(name) ? name : null;
  } catch {
    return null;
  }
}

function unfit(reason: string): ProblemError {
  return new ProblemError(`The guest cannot be attached: ${reason}.`, {
    code: "guest-not-attachable",
  });
}
