import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { text } from "node:stream/consumers";
import type { Guest } from "../api/guest.ts";
import { messageOf, usageError } from "../cli-error.ts";
import { EXIT_CODE, type ExitCode } from "../exit-code.ts";
import { renderDetails, renderTable } from "../render/table.ts";
import { formatBytes } from "../units/format-amount.ts";
import type { CommandContext } from "../command-context.ts";

export interface GuestOptions {
  readonly json?: boolean;
}

export async function listGuests(
  { api, stdout }: CommandContext,
  { json = false }: GuestOptions,
): Promise<ExitCode> {
  const guests = await api.guests();
  const head = ["NAME", "STATE", "MEMORY", "VCPUS", "ACCEL", "EPOCH", "PID", "QEMU"];
  stdout.write(
    json ? `${JSON.stringify({ guests })}\n` : renderTable([head, ...guests.map(rowOf)]),
  );
  return EXIT_CODE.ok;
}

export async function showGuest(
  context: CommandContext,
  name: string,
  { json = false }: GuestOptions,
): Promise<ExitCode> {
  return print(context, await context.api.guest(name), json);
}

/** The file holds the body of `POST /v1/guests`; `-` is the standard input. */
export async function startGuest(
  context: CommandContext,
  file: string,
  { json = false }: GuestOptions,
): Promise<ExitCode> {
  return print(context, await context.api.startGuest(await readDefinition(file)), json);
}

export interface AttachOptions extends GuestOptions {
  readonly qmp: string;
  readonly cpu?: string;
  readonly sharedDisks?: readonly string[];
}

export async function attachGuest(
  context: CommandContext,
  name: string,
  { qmp, cpu, sharedDisks = [], json = false }: AttachOptions,
): Promise<ExitCode> {
  const body = {
    name,
    // The agent may have another working directory.
    attach: { qmp: resolve(qmp) },
    ...(cpu === undefined ? {} : { cpu }),
    ...(sharedDisks.length === 0
      ? {}
      : { disks: sharedDisks.map((id) => ({ id, mode: "shared" })) }),
  };
  return print(context, await context.api.startGuest(body), json);
}

export async function stopGuest(
  context: CommandContext,
  name: string,
  { json = false }: GuestOptions,
): Promise<ExitCode> {
  return print(context, await context.api.stopGuest(name), json);
}

function print({ stdout }: CommandContext, guest: Guest, json: boolean): ExitCode {
  stdout.write(json ? `${JSON.stringify(guest)}\n` : detailsOf(guest));
  return EXIT_CODE.ok;
}

async function readDefinition(file: string): Promise<unknown> {
  const name = file === "-" ? "the standard input" : file;
  let content: string;
  try {
    content = file === "-" ? await text(process.stdin) : await readFile(file, "utf8");
  } catch (error) {
    throw usageError(`FILE cannot be read: ${messageOf(error)}`);
  }
  try {
    return JSON.parse(content);
  } catch (error) {
    throw usageError(`FILE has to be a guest's definition in JSON; ${name}: ${messageOf(error)}`);
  }
}

function rowOf(guest: Guest): string[] {
  const { name, state, memoryBytes, vcpus, accel, epoch, pid, qemuVersion } = guest;
  return [
    name,
    state,
    formatBytes(memoryBytes),
    String(vcpus),
    accel,
    String(epoch),
    String(pid ?? "-"),
    qemuVersion ?? "-",
  ];
}

function detailsOf(guest: Guest): string {
  const disks = guest.disks.map(({ id, image, mode }) => `${id} ${image} (${mode})`).join(", ");
  return renderDetails(`Guest ${guest.name}`, [
    ["state", guest.state],
    ["epoch", String(guest.epoch)],
    ["memory", formatBytes(guest.memoryBytes)],
    ["vCPUs", `${guest.vcpus} ${guest.cpu}, ${guest.accel}`],
    ["machine", guest.machine],
    ["disks", disks === "" ? "none" : disks],
    ["QEMU", `${guest.qemuVersion ?? "unknown"}, process ${guest.pid ?? "none"}`],
    ["console", guest.serialLog ?? "none"],
    ...attachedRows(guest.attached ?? null),
  ]);
}

function attachedRows(attached: NonNullable<Guest["attached"]> | null): [string, string][] {
  if (attached === null) return [];
  const { qmp, launchRefusal } = attached;
  const moves =
    launchRefusal === ""
      ? "a destination can launch it"
      : `a destination needs a QEMU prepared for it: ${launchRefusal}`;
  return [
    ["attached", qmp],
    ["moving", moves],
  ];
}
