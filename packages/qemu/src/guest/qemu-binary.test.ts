import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { inspectQemuBinary, parseMachineTypes, parseQemuVersion } from "./qemu-binary.ts";

describe("parseQemuVersion", () => {
  it("reads the version with and without what a distribution adds", () => {
    const debian = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright (c) …\n";
    expect(parseQemuVersion(debian)).toEqual({ major: 10, minor: 0, micro: 2 });
    expect(parseQemuVersion("QEMU emulator version 7.2.22\n")).toMatchObject({ major: 7 });
    expect(parseQemuVersion("bash 5.2.15\n")).toBeNull();
  });
});

describe("parseMachineTypes", () => {
  it("reads names and aliases and skips the heading", () => {
    const text = [
      "Supported machines are:",
      "pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-10.0)",
      "pc-i440fx-10.0       Standard PC (i440FX + PIIX, 1996) (default)",
      "none                 empty machine",
      "",
    ].join("\n");
    expect(parseMachineTypes(text)).toEqual([
      { name: "pc", aliasOf: "pc-i440fx-10.0" },
      { name: "pc-i440fx-10.0", aliasOf: null },
      { name: "none", aliasOf: null },
    ]);
  });
});

describe("inspectQemuBinary", () => {
  let directory: string;
  let binary: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "qemu-binary-"));
    binary = join(directory, "qemu");
  });
  afterEach(() => rm(directory, { recursive: true }));

  async function install(version: string): Promise<void> {
    const script = [
      "#!/bin/sh",
      `echo "$@" >> ${directory}/calls`,
      `if [ "$1" = --version ]; then echo "${version}"; else printf 'Heading\\nnone  x\\n'; fi`,
    ];
    await writeFile(binary, script.join("\n"));
    await chmod(binary, 0o755);
  }
  const calls = async (): Promise<number> =>
    (await readFile(join(directory, "calls"), "utf8")).trim().split("\n").length;

  it("asks a binary once, and again when another one is installed in its place", async () => {
    await install("QEMU emulator version 7.2.22");
    const [first, second] = await Promise.all([
      inspectQemuBinary(binary),
      inspectQemuBinary(binary),
    ]);
    expect(first).toEqual({
      path: binary,
      version: { major: 7, minor: 2, micro: 22 },
      machineTypes: [{ name: "none", aliasOf: null }],
    });
    expect(second).toBe(first);
    expect(await calls()).toBe(2);
    await install("QEMU emulator version 10.0.2 (x)");
    expect((await inspectQemuBinary(binary)).version.major).toBe(10);
    expect(await calls()).toBe(4);
  });

  it("refuses what is absent, not executable, failing, or no QEMU", async () => {
    const refused = { code: "qemu-not-usable" };
    await expect(inspectQemuBinary(binary)).rejects.toMatchObject(refused);
    await expect(inspectQemuBinary("no-such-qemu")).rejects.toMatchObject(refused);
    await expect(inspectQemuBinary(directory)).rejects.toMatchObject(refused);
    await expect(inspectQemuBinary("/bin/false")).rejects.toMatchObject(refused);
    await install("something else 1.2.3");
    await expect(inspectQemuBinary(binary)).rejects.toMatchObject(refused);
    await chmod(binary, 0o644);
    await expect(inspectQemuBinary(binary)).rejects.toMatchObject(refused);
  });
});
