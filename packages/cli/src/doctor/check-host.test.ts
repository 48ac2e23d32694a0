// What the checks of this host make of hosts that are made of files.

import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { checkAcceleration } from "./check-acceleration.ts";
import { checkCertificates } from "./check-certificates.ts";
import { checkClock } from "./check-clock.ts";
import { checkDirectory } from "./check-directory.ts";
import { checkDiskSpace } from "./check-disk-space.ts";
import { checkPostCopy } from "./check-post-copy.ts";
import { checkQemu } from "./check-qemu.ts";
import { checkSharedDirectory } from "./check-shared-directory.ts";

let directory = "";

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-doctor-"));
});

afterEach(async () => {
  await rm(directory, { recursive: true });
});

/** A program that does what the script says. */
async function program(script: string): Promise<string> {
  const path = join(directory, "program");
  await writeFile(path, `#!/bin/sh\n${script}\n`);
  await chmod(path, 0o755);
  return path;
}

describe("qemu", () => {
  test.each([
    ["10.0.2", "pass"],
    ["11.1.0", "pass"],
    ["7.2.22", "warn"],
  ])("of version %s is a %s", async (version, status) => {
    const qemu = await program(`echo 'QEMU emulator version ${version} (Debian)'`);
    const finding = await checkQemu(qemu);
    expect(finding.status).toBe(status);
    expect(finding.detail).toContain(version);
  });

  test.each([
    ["that is not there", "/nonexistent/qemu", /there is no \/nonexistent\/qemu/],
    ["that says something else", "/bin/echo", /does not say that it is QEMU/],
    ["that fails", "/bin/false", /\/bin\/false/],
  ])("%s fails, and it is said what to install", async (_, qemu, detail) => {
    const finding = await checkQemu(qemu);
    expect(finding).toMatchObject({ status: "fail" });
    expect(finding.detail).toMatch(detail);
    expect(finding.hint).toMatch(/QEMU 10.*--qemu/);
  });
});

describe("acceleration", () => {
  const onHost = async (flags: string, device: string): Promise<unknown> => {
    const cpuinfo = join(directory, "cpuinfo");
    await writeFile(cpuinfo, `model name\t: x\nflags\t\t: fpu ${flags} sse\n`);
    return checkAcceleration({ device, cpuinfo });
  };

  test.each([
    ["vmx", "/dev/null", "pass", /^KVM: .* vmx$/],
    ["svm", "/dev/null", "pass", /^KVM: .* svm$/],
    ["", "/dev/null", "warn", /^TCG: \/dev\/null opens, but the processor offers neither/],
    ["svm_lock", "/dev/null", "warn", /neither/],
    ["", "/nonexistent", "warn", /^TCG: the processor offers neither/],
    ["vmx", "/nonexistent", "warn", /^TCG: \/nonexistent does not open \(ENOENT\)$/],
  ])("with flag %j and device %s is a %s", async (flags, device, status, detail) => {
    const detailMatch = expect.stringMatching(detail) as string;
    expect(await onHost(flags, device)).toMatchObject({ status, detail: detailMatch });
  });
});

describe("post-copy", () => {
  const greeting = `echo '{"QMP": {}}'; echo '{"return": {}}'`;

  test.each([
    ["is not refused", `echo '{"return": {}, "id": "asked"}'`, "pass", /can receive/],
    [
      "is refused",
      `echo '{"id": "asked", "error": {"class": "GenericError", "desc": "Userfaultfd not available"}}'`,
      "warn",
      /^Userfaultfd not available \(\/dev\/userfaultfd .*, vm\.unprivileged_userfaultfd is /,
    ],
    ["is not answered", ":", "skip", /did not answer/],
    ["makes QEMU fail", "exit 1", "skip", /could not be asked/],
  ])("that %s by QEMU", async (_, answer, status, detail) => {
    const finding = await checkPostCopy(await program(`${greeting}; cat >/dev/null; ${answer}`));
    expect(finding).toMatchObject({ status, detail: expect.stringMatching(detail) as string });
  });
});

describe("a directory", () => {
  const check = (path: string | undefined, isPrivate = true): Promise<unknown> =>
    checkDirectory({ path, setting: "--state-dir", isPrivate });

  test("that can be written to passes, and nothing is left there", async () => {
    expect(await check(directory)).toMatchObject({ status: "pass" });
    expect(await readdir(directory)).toEqual([]);
  });

  test("that is not there passes where it could be made, and is not made", async () => {
    const path = join(directory, "a/b");
    expect(await check(path)).toMatchObject({ status: "pass" });
    expect(await readdir(directory)).toEqual([]);
  });

  test("that is open to others is worth a warning where it is the agent's alone", async () => {
    const path = join(directory, "open");
    await mkdir(path);
    await chmod(path, 0o755);
    expect(await check(path)).toMatchObject({ status: "warn", hint: `chmod 0700 ${path}` });
    expect(await check(path, false)).toMatchObject({ status: "pass" });
  });

  test("that is a file, or lies below one, fails", async () => {
    const path = join(directory, "file");
    await writeFile(path, "");
    expect(await check(path)).toMatchObject({ status: "fail" });
    expect(await check(join(path, "below"))).toMatchObject({ status: "fail" });
  });

  test("that is not set is not checked", async () => {
    expect(await check(undefined)).toMatchObject({ status: "skip" });
  });
});

describe("the shared directory", () => {
  test("passes where a file can have two names, and nothing is left there", async () => {
    expect(await checkSharedDirectory(directory)).toMatchObject({ status: "pass" });
    expect(await readdir(directory)).toEqual([]);
  });

  test("fails where it is not there", async () => {
    const path = join(directory, "none");
    expect(await checkSharedDirectory(path)).toMatchObject({ status: "fail" });
  });
});

test("disk space is that of the nearest directory there is", async () => {
  const finding = await checkDiskSpace([join(directory, "a/b"), undefined]);
  expect(finding.detail).toMatch(/^free: .* for .*\/a\/b$/);
  expect(await checkDiskSpace(["/proc/none"])).toMatchObject({ status: "fail" });
  expect(await checkDiskSpace([undefined])).toMatchObject({ status: "skip" });
});

test.each([
  ["echo yes", "pass"],
  ["echo no", "warn"],
  ["exit 1", "skip"],
])("a clock of which timedatectl says %j is a %s", async (script, status) => {
  expect(await checkClock(await program(script))).toMatchObject({ status });
});

test("what is not there is told by the name that was given, and not by a file of the check's own", async () => {
  const none = join(directory, "none");
  const findings = [
    await checkDirectory({ path: "/proc/none", setting: "--image-dir", isPrivate: false }),
    await checkSharedDirectory(none),
    await checkCertificates(none),
    await checkPostCopy(none),
  ];
  expect(findings.map(({ detail }) => detail.split("\n")[0])).toEqual([
    "/proc/none is not there (ENOENT)",
    `${none} is not there (ENOENT)`,
    `${join(none, "ca-cert.pem")} is not there (ENOENT)`,
    `QEMU could not be asked: ${none} is not there (ENOENT)`,
  ]);
});
