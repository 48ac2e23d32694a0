import { execFile } from "node:child_process";
import { access, constants, stat } from "node:fs/promises";
import { delimiter, join, resolve } from "node:path";
import { messageOf } from "@vmferry/core";
import type { QemuVersion } from "../qmp/qemu-version.ts";
import { GuestError } from "./guest-error.ts";

export interface MachineType {
  readonly name: string;
  /** Set for a name such as `q35`, which means another machine in each QEMU. */
  readonly aliasOf: string | null;
}

export interface QemuBinary {
  readonly path: string;
  readonly version: QemuVersion;
  readonly machineTypes: readonly MachineType[];
}

const RUN_TIMEOUT_MS = 20_000;
const OUTPUT_BYTES_MAX = 1024 * 1024;

/** By path and by what is installed there: an upgrade replaces the file while the agent runs. */
const inspected = new Map<string, Promise<QemuBinary>>();

/**
 * What a QEMU is and what it offers; asked once for each binary. `binary` is a path, or a name to
 * be found by PATH. Rejects with `qemu-not-usable`.
 */
export async function inspectQemuBinary(binary: string): Promise<QemuBinary> {
  const path = await findExecutable(binary);
  const { dev, ino, size, mtimeMs } = await stat(path);
  const key = JSON.stringify([path, dev, ino, size, mtimeMs]);
  const known = inspected.get(key);
  if (known !== undefined) return known;
  const inspection = inspect(path);
  inspected.set(key, inspection);
  // A failure may pass: the next caller asks again.
  inspection.catch(() => inspected.delete(key));
  return inspection;
}

export function parseQemuVersion(text: string): QemuVersion | null {
  const match = /^QEMU emulator version (\d{1,4})\.(\d{1,4})\.(\d{1,4})/m.exec(text);
  if (match === null) return null;
  const [major, minor, micro] = match.slice(1).map(Number) as [number, number, number];
  return { major, minor, micro };
}

export function parseMachineTypes(text: string): readonly MachineType[] {
  const machineTypes: MachineType[] = [];
  // The first line is a heading.
  for (const line of text.split("\n").slice(1)) {
    const name = /^(\S+)\s/.exec(line)?.[1];
    if (name === undefined) continue;
    machineTypes.push({ name, aliasOf: /\(alias of (\S+)\)/.exec(line)?.[1] ?? null });
  }
  return machineTypes;
}

async function inspect(path: string): Promise<QemuBinary> {
  const version = parseQemuVersion(await run(path, ["--version"]));
  if (version === null) throw notUsable(path, "it does not say that it is QEMU");
  return { path, version, machineTypes: parseMachineTypes(await run(path, ["-machine", "help"])) };
}

async function findExecutable(binary: string): Promise<string> {
  const candidates = binary.includes("/")
    ? [resolve(binary)]
    : (process.env["PATH"] ?? "")
        .split(delimiter)
        .map((directory) => resolve(join(directory, binary)));
  for (const candidate of candidates) {
    try {
      await access(candidate, constants.X_OK);
      if ((await stat(candidate)).isFile()) return candidate;
    } catch {
      // Not this one; the next directory of PATH may have it.
    }
  }
  throw notUsable(binary, "no executable of that name was found");
}

function run(path: string, qemuArguments: readonly string[]): Promise<string> {
  const options = {
    timeout: RUN_TIMEOUT_MS,
    maxBuffer: OUTPUT_BYTES_MAX,
    encoding: "utf8",
  } as const;
  return new Promise((resolve, reject) => {
    execFile(path, qemuArguments, { ...options, killSignal: "SIGKILL" }, (error, stdout) => {
      if (error === null) resolve(stdout);
      else reject(notUsable(path, messageOf(error), error));
    });
  });
}

function notUsable(binary: string, reason: string, cause?: unknown): GuestError {
  return new GuestError(
    `the QEMU binary ${binary} cannot be used: ${reason}`,
    { code: "qemu-not-usable", binary, reason },
    { cause },
  );
}
