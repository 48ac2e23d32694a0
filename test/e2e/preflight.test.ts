import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { chmod, mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Check, ControlMessage, ControlMessageOf, PreflightReport } from "@vmferry/protocol";
import { controlOf, type Lab } from "@vmferry/testkit";
import { convertToQcow2 } from "../expect-disks.ts";
import { expectMoves } from "../expect-guest.ts";
import type { MoveOptions } from "../moving-guest.ts";
import { useOtherDests } from "../other-dests.ts";
import { openVdi, writeProbedQemu } from "../probed-qemu.ts";
import { useLab, useProxiedLab } from "../test-lab.ts";

const MIB = 1024 * 1024;
const PATIENT_MS = 10_000;
const DOCUMENT = readFileSync(new URL("../../docs/preflight.md", import.meta.url), "utf8");

type Checks = ReadonlyMap<string, Check>;

async function preflight(lab: Lab, guest: string, options: MoveOptions = {}): Promise<Checks> {
  // A machine that has much else to do is no slow link.
  const limits = { downtimeMsMax: PATIENT_MS };
  const request = { guest, destination: "dest", limits, ...options };
  const path = "/v1/migrations/preflight";
  const { checks } = await lab.source.api.request<PreflightReport>("POST", path, request);
  return new Map(checks.map((check) => [check.name, check]));
}

/** Names of those that are neither as they should be nor without a say. */
function badOf(checks: Checks): readonly string[] {
  const bad = [...checks.values()].filter(({ status }) => status === "fail" || status === "warn");
  return bad.map(({ name }) => name);
}

describe("a preflight", () => {
  const test = useLab();

  it("of a guest that could move fails no check, and all checks are those of the document", async () => {
    await test.lab.makeDisk("looked-at.raw", 16 * MIB, { fill: 0.5 });
    const guest = await test.boot({ disks: [{ id: "disk0", image: "looked-at.raw" }] });
    const imagesBefore = await readdir(test.lab.imagePath("dest"));
    const checks = await preflight(test.lab, guest.name);
    expect(badOf(checks)).toEqual([]);
    for (const name of ["cpu-features", "machine-type", "images", "dest-space", "devices"]) {
      expect(checks.get(name), name).toMatchObject({ status: "pass" });
    }
    const documented = [...DOCUMENT.matchAll(/^\| `([a-z-]+)` \|[^|]*\|[^|]*\|[^|]*\|$/gm)];
    expect([...checks.keys()].sort()).toEqual(documented.map(([, name]) => name).sort());
    // Nothing was begun, and nothing is left.
    expect(await readdir(test.lab.imagePath("dest"))).toEqual(imagesBefore);
    expect(await readdir(test.lab.imagePath("source"))).not.toContainEqual(
      expect.stringContaining("proof"),
    );
    expect(await test.lab.source.api.migrations()).toEqual([]);
    expect(guest.qemus("dest")).toEqual([]);
    await expectMoves(guest);
  });
});

// Those that are not here are provoked in test/fault/refused-destinations.test.ts and disks.test.ts;
// cpu-model, accelerator and tls, which need another host or guest than a test has, beside their files.
describe("a preflight tells, and of nothing else,", () => {
  const directory = mkdtempSync(join(tmpdir(), "vmferry-preflight-"));
  const test = useProxiedLab({
    source: { environment: { VMFERRY_QEMU: join(directory, "lenient-qemu") } },
  });
  const replaceDest = useOtherDests(test);
  const guests: string[] = [];
  /** A QEMU that a script changes something of. */
  const writeQemu = async (name: string, body: string): Promise<string> => {
    const path = join(directory, name);
    await writeFile(path, `#!/bin/sh\n${body}\n`);
    await chmod(path, 0o755);
    return path;
  };

  beforeAll(async () => {
    const probed = await writeProbedQemu(directory);
    // As a QEMU is that somebody else has started: the agents' own takes nothing that cannot migrate.
    const dropped = `for word; do shift; [ "$word" = -only-migratable ] || set -- "$@" "$word"; done`;
    await writeQemu("lenient-qemu", `${dropped}\nexec ${probed} "$@"`);
  });
  afterEach(async () => {
    for (const name of guests.splice(0)) await test.lab.source.api.powerOff(name);
  });
  afterAll(async () => {
    await rm(directory, { recursive: true });
  });

  /** It is not waited for until its workload works: nobody is going to move it. */
  const start = async (definition: Readonly<Record<string, unknown>> = {}): Promise<string> => {
    const name = `looked-at-${guests.length}`;
    guests.push(name);
    const boot = { kernel: "vmlinuz", initrd: "initrd.img", cmdline: "console=ttyS0 quiet" };
    const common = { name, machine: "pc-q35-10.0", memoryBytes: 64 * MIB, boot };
    await test.lab.source.api.startGuest({ ...common, ...definition });
    return name;
  };

  const expectBad = (checks: Checks, expected: Partial<Check>): void => {
    const text = JSON.stringify([...checks.values()]);
    expect(badOf(checks), text).toEqual([expected.name]);
    expect(checks.get(expected.name!)).toMatchObject(expected);
    expect(checks.get(expected.name!)!.hint).not.toBe(null);
  };

  const containing = (text: string): string => expect.stringContaining(text) as string;

  const fromDest =
    (kind: ControlMessage["kind"]): ReturnType<typeof controlOf> =>
    (message) =>
      message.direction === "to-source" && controlOf(kind)(message);

  it("a round trip that the downtime has no room for", async () => {
    const guest = await start();
    test.proxy.delayMs = 80;
    const checks = await preflight(test.lab, guest, { limits: { downtimeMsMax: 300 } });
    expectBad(checks, { name: "link", status: "warn", detail: containing("300 ms that it may") });
  });

  it("a clock that goes wrong", async () => {
    const guest = await start();
    void test.proxy.replace(fromDest("probe-result"), (message) => {
      const result = message as ControlMessageOf<"probe-result">;
      return { ...result, dateMs: result.dateMs - 60_000 };
    });
    const checks = await preflight(test.lab, guest);
    expectBad(checks, { name: "clock", status: "warn", detail: containing("s behind this one") });
  });

  it("a destination of a release that cannot be asked", async () => {
    const guest = await start();
    void test.proxy.replace(fromDest("hello"), (message) => {
      return { ...(message as ControlMessageOf<"hello">), features: ["zstd"] };
    });
    const checks = await preflight(test.lab, guest);
    expectBad(checks, { name: "destination", status: "warn", detail: containing("release") });
  });

  it("a QEMU there that loses what a guest under TCG writes", async () => {
    const old = `[ "$*" = "--version" ] && echo "QEMU emulator version 9.2.1" && exit
exec qemu-system-x86_64 "$@"`;
    await replaceDest(["--qemu", await writeQemu("qemu-9", old)]);
    const checks = await preflight(test.lab, await start());
    expectBad(checks, { name: "qemu-version", status: "fail", detail: containing("9.2") });
  });

  // Root may always use it; the QEMU that is asked is somebody else's here.
  it.runIf(process.getuid?.() === 0)("userfaultfd that QEMU there must not use", async () => {
    const nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    const qemu = await writeQemu("qemu-nobody", `exec ${nobody} qemu-system-x86_64 "$@"`);
    await replaceDest(["--qemu", qemu]);
    const guest = await start();
    const expected = { name: "post-copy", detail: containing("serfaultfd") };
    const wanted = await preflight(test.lab, guest, { mode: "post-copy" });
    expectBad(wanted, { ...expected, status: "fail" });
    const maybe = await preflight(test.lab, guest);
    expectBad(maybe, { ...expected, status: "warn" });
    const never = await preflight(test.lab, guest, { onStall: "throttle" });
    expect(badOf(never)).toEqual([]);
  });

  it("what the destination lacks of a CPU model", async () => {
    // QEMU's TCG leaves out what it does not have, and starts the guest all the same.
    const guest = await start({ cpu: "SapphireRapids" });
    const checks = await preflight(test.lab, guest);
    expectBad(checks, { name: "cpu-features", status: "fail", detail: containing("avx512f") });
    const allowed = await preflight(test.lab, guest, { allowUnsafe: ["cpu-features"] });
    expectBad(allowed, { name: "cpu-features", status: "warn" });
  });

  it("what QEMU cannot migrate of the guest", async () => {
    const guest = await start();
    const { pid } = await test.lab.source.api.guest(guest);
    const image = join(directory, "plugged.vdi");
    execFileSync("qemu-img", ["create", "-q", "-f", "vdi", image, "1M"]);
    await openVdi(directory, pid!, image);
    const checks = await preflight(test.lab, guest);
    expectBad(checks, { name: "devices", status: "fail", detail: containing("vdi") });
  });

  it("an image that is gone at the source", async () => {
    const path = await test.lab.makeDisk("going.raw", MIB);
    const guest = await start({ disks: [{ id: "disk0", image: "going.raw" }] });
    await rename(path, `${path}.away`);
    const checks = await preflight(test.lab, guest);
    // The destination is not asked about half a guest.
    expect(badOf(checks)).toEqual(["destination", "disks"]);
    expect(checks.get("disks")).toMatchObject({ status: "fail", detail: containing("going.raw") });
  });

  it("something else in the place of an image at the destination", async () => {
    await test.lab.makeDisk("taken.raw", MIB);
    await writeFile(test.lab.imagePath("dest", "taken.raw"), "of somebody");
    const guest = await start({ disks: [{ id: "disk0", image: "taken.raw" }] });
    const checks = await preflight(test.lab, guest);
    expectBad(checks, { name: "images", status: "fail", detail: containing("taken.raw") });
    expect(readFileSync(test.lab.imagePath("dest", "taken.raw"), "utf8")).toBe("of somebody");
  });

  it("a shared disk that is another file there", async () => {
    await test.lab.makeDisk("twin.raw", MIB);
    await writeFile(test.lab.imagePath("dest", "twin.raw"), Buffer.alloc(MIB));
    const guest = await start({ disks: [{ id: "disk0", image: "twin.raw", mode: "shared" }] });
    const checks = await preflight(test.lab, guest);
    expectBad(checks, { name: "shared-images", status: "fail", detail: containing("twin.raw") });
  });

  // Mounting is for root alone; in CI it is root.
  it.runIf(process.getuid?.() === 0)("no room at the source for a mirror", async () => {
    const raw = await test.lab.makeDisk("roomy.raw", 8 * MIB, { fill: 1 });
    await convertToQcow2(raw, test.lab.imagePath("source", "roomy.qcow2"));
    const disk = { id: "disk0", image: "roomy.qcow2", format: "qcow2" };
    const guest = await start({ disks: [disk] });
    const run = join(test.lab.directory, "s", "run");
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", run]);
    try {
      const checks = await preflight(test.lab, guest);
      expectBad(checks, { name: "source-space", status: "fail", detail: containing(run) });
    } finally {
      execFileSync("umount", ["--lazy", run]);
    }
  });
});

describe("a preflight with a shared directory", () => {
  const shared = mkdtempSync(join(tmpdir(), "vmferry-shared-"));
  const flags = (name: string): readonly string[] => ["--shared-dir", join(shared, name)];
  const test = useProxiedLab({ source: { flags: flags("a") }, dest: { flags: flags("a") } });
  const replaceDest = useOtherDests(test);
  beforeAll(async () => {
    for (const name of ["a", "b"]) await mkdir(join(shared, name));
  });
  afterAll(async () => {
    await rm(shared, { recursive: true });
  });

  it("tells whether both hosts have the same one", async () => {
    const guest = await test.boot();
    const request = { fallback: "shared-filesystem" };
    const look = async (): Promise<readonly unknown[]> => {
      const checks = await preflight(test.lab, guest.name, request);
      return ["shared-directory", "fallback"].map((name) => checks.get(name)?.status);
    };
    expect(await look()).toEqual(["pass", "pass"]);
    await replaceDest(flags("b"));
    expect(await look()).toEqual(["warn", "fail"]);
    await replaceDest([]);
    expect(await look()).toEqual(["warn", "fail"]);
    const left = await readdir(join(shared, "a"), { recursive: true });
    expect(left).not.toContainEqual(expect.stringContaining("proof"));
  });
});
