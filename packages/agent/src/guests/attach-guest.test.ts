/** Against a process that answers as QEMU 10 does, and serves one monitor at a time as it does. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { PartialMark, type MarkState } from "@vmferry/block";
import type { GuestAttach } from "@vmferry/protocol";
import { attachGuest, type AttachedQemu, type Attaching } from "./attach-guest.ts";

const MIB = 1024 * 1024;
const UUID = "4dea22b3-1d52-48f3-a516-782e98ab3fa0";

/** Its one argument: where it listens, what it says to whom connects, and its answers. */
const PROCESS = `
const { path, greeting, answers } = JSON.parse(process.argv[1]);
const threads = require("node:fs").readdirSync("/proc/self/task").map(Number);
const known = { first: process.pid, own: threads.find((id) => id !== process.pid) };
for (const cpu of answers["query-cpus-fast"]) {
  cpu["thread-id"] = known[cpu["thread-id"]] ?? cpu["thread-id"];
}
const waiting = [];
let served = null;
const next = () => { served = waiting.shift() ?? null; if (served !== null) serve(served); };
require("node:net").createServer((socket) => {
  socket.on("error", () => undefined);
  socket.on("close", () => { if (served === socket) next(); });
  waiting.push(socket);
  if (served === null) next();
}).listen(path, () => process.stdout.write("listening"));
function serve(socket) {
  socket.write(greeting);
  let text = "";
  socket.setEncoding("utf8").on("data", (chunk) => {
    text += chunk;
    for (let end = text.indexOf("\\n"); end !== -1; end = text.indexOf("\\n")) {
      const { execute, arguments: asked, id } = JSON.parse(text.slice(0, end));
      text = text.slice(end + 1);
      const key = asked?.property ? asked.path + "." + asked.property : (asked?.path ?? "");
      const answer = answers[execute + (key === "" ? "" : " " + key)];
      const error = { class: "GenericError", desc: "no " + key };
      socket.write(JSON.stringify(answer === undefined ? { error, id } : { return: answer, id }) + "\\r\\n");
    }
  });
}
`;
const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "test"}, "capabilities": ["oob"]}}\r\n';

type Answers = Record<string, unknown>;
/** Its thread by number, or as the process that answers knows it. */
const cpu = (index: number, thread: "first" | "own" | number): object => ({
  ...{ "cpu-index": index, "thread-id": thread, "qom-path": `/machine/cpu${index}` },
});
const pci = (slot: number, part: number, id = "", desc = "ISA bridge"): object => ({
  ...{ bus: 0, slot, function: part, qdev_id: id, class_info: { class: 1, desc } },
});

let directory: string;
let imageDir: string;
let answers: Answers;
let child: ChildProcess | null = null;
let attached: AttachedQemu | null = null;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-attach-"));
  imageDir = join(directory, "images");
  await mkdir(imageDir);
  for (const name of ["web1.raw", "vmlinuz", "initrd.img"]) {
    await writeFile(join(imageDir, name), "");
  }
  answers = {
    qmp_capabilities: {},
    "query-status": { status: "running", running: true },
    "query-name": { name: "web1" },
    "query-uuid": { UUID },
    "query-kvm": { enabled: false, present: true },
    "query-cpus-fast": [cpu(0, "own")],
    "query-memory-size-summary": { "base-memory": 128 * MIB, "plugged-memory": 0 },
    "query-migrate": {},
    "query-migrate-capabilities": [
      { capability: "events", state: true },
      { capability: "multifd", state: false },
    ],
    "query-pci": [
      {
        bus: 0,
        devices: [
          ...[pci(0, 0), pci(31, 0), pci(31, 2), pci(31, 3)],
          pci(4, 0, "virtio-disk0", "SCSI controller"),
        ],
      },
    ],
    "query-block": [
      {
        ...{
          "io-status": "ok",
          device: "",
          qdev: "/machine/peripheral/virtio-disk0/virtio-backend",
        },
        inserted: node("libvirt-1-format", join(imageDir, "web1.raw")),
      },
    ],
    "qom-list /machine/peripheral": [
      { name: "type", type: "string" },
      { name: "virtio-disk0", type: "child<virtio-blk-pci>" },
      { name: "serial0", type: "child<isa-serial>" },
    ],
    "qom-list /machine/peripheral-anon": [{ name: "type", type: "string" }],
    "qom-list /machine/unattached": [{ name: "device[2]", type: "child<ICH9-LPC>" }],
    "qom-get /machine.type": "pc-q35-10.0-machine",
    "qom-get /machine.kernel": join(imageDir, "vmlinuz"),
    "qom-get /machine.initrd": join(imageDir, "initrd.img"),
    "qom-get /machine.append": "console=ttyS0",
    "qom-get /machine.memory-backend": "/objects/pc.ram",
    "qom-get /objects/pc.ram.x-use-canonical-path-for-ramblock-id": false,
    "qom-get /machine/cpu0.type": "qemu64-x86_64-cpu",
    "qom-get /machine/cpu0.vmx": false,
  };
});

afterEach(async () => {
  await attached?.process.detach();
  attached = null;
  if (child !== null) {
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  }
  child = null;
  await rm(directory, { recursive: true });
});

function node(name: string, file: string, more: object = {}): object {
  return {
    ...{ "node-name": name, drv: "raw", file, ro: false, active: true },
    ...{ image: { "virtual-size": 64 * MIB }, ...more },
  };
}

async function listen(greeting = GREETING): Promise<string> {
  const path = join(directory, "qmp.sock");
  const about = JSON.stringify({ path, greeting, answers });
  child = spawn(process.execPath, ["-e", PROCESS, about], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout!, "data");
  return path;
}

async function attach(
  more: Partial<GuestAttach> = {},
  attaching: Attaching = "running",
): Promise<AttachedQemu> {
  const qmp = child === null ? await listen() : join(directory, "qmp.sock");
  const request = { name: "web1", attach: { qmp }, ...more };
  attached = await attachGuest({
    ...{ request, attaching, imageDir, directory: join(directory, "guests", "web1") },
  });
  return attached;
}

async function markImage(state: MarkState): Promise<void> {
  const subject = { imageBytes: 64 * MIB, blockBytes: MIB, migrationId: "m1", epoch: 2 };
  const mark = await PartialMark.create(join(imageDir, "web1.raw"), subject);
  await mark.update({ state });
}

describe("a QEMU is described by itself", () => {
  test("as a definition that could be launched elsewhere, where the processor was named", async () => {
    const { process: qemu, definition, ...rest } = await attach({ cpu: "qemu64,vmx=off" });
    expect(qemu.pid).toBe(child!.pid);
    expect(definition).toEqual({
      ...{ name: "web1", machine: "pc-q35-10.0", accel: "tcg", cpu: "qemu64,vmx=off", vcpus: 1 },
      memoryBytes: 128 * MIB,
      boot: { kernel: "vmlinuz", initrd: "initrd.img", cmdline: "console=ttyS0" },
      disks: [{ id: "libvirt-1-format", image: "web1.raw", format: "raw", mode: "copy" }],
      serial: "file",
    });
    expect(rest).toEqual({
      ...{ accel: "tcg", uuid: UUID, running: true },
      attachment: {
        ...{ qmp: join(directory, "qmp.sock"), launchRefusal: "" },
        diskBytes: { "libvirt-1-format": 64 * MIB },
      },
    });
  });

  test("and what keeps a dest from launching it is said", async () => {
    (answers["qom-list /machine/peripheral"] as object[]).push({
      ...{ name: "input0", type: "child<usb-tablet>" },
    });
    const { attachment } = await attach();
    expect(attachment.launchRefusal).toBe(
      "it has a usb-tablet (input0); cpu was not given when it was attached, and QEMU does not tell " +
        "its features",
    );
  });

  test("a display that nobody has asked for counts as well, and memory of another name", async () => {
    const [bus] = answers["query-pci"] as { devices: object[] }[];
    bus!.devices.push(pci(1, 0, "", "VGA controller"));
    answers["qom-get /objects/pc.ram.x-use-canonical-path-for-ramblock-id"] = true;
    const { attachment } = await attach({ cpu: "qemu64" });
    expect(attachment.launchRefusal).toBe(
      "it has a VGA controller in slot 0x1; its memory is called /objects/pc.ram",
    );
  });

  test("a disk that both hosts see is not copied, if that is said", async () => {
    const disks = [{ id: "libvirt-1-format", mode: "shared" }] as const;
    const { definition } = await attach({ disks });
    expect(definition.disks).toMatchObject([{ id: "libvirt-1-format", mode: "shared" }]);
  });

  test("the firmware's variables, and drives without a disk of their own, are no disks", async () => {
    (answers["query-block"] as object[]).push(
      { device: "", qdev: "/machine/system.flash0", inserted: node("vars", "/var/vars.fd") },
      { device: "cd0", qdev: "/machine/peripheral/cd0" },
    );
    const { definition, attachment } = await attach({ cpu: "qemu64" });
    expect(definition.disks).toHaveLength(1);
    expect(attachment.launchRefusal).toContain("a drive without a disk of its own");
  });

  test("of a disk in a chain of qcow2 images, QEMU knows the size", async () => {
    const [drive] = answers["query-block"] as { inserted: object }[];
    drive!.inserted = node("libvirt-1-format", join(imageDir, "web1.raw"), { drv: "qcow2" });
    const { definition } = await attach();
    expect(definition.disks).toMatchObject([{ format: "qcow2" }]);
  });
});

describe("attaching is refused, and says what to do,", () => {
  test.each<[string, (answers: Answers) => void, Partial<GuestAttach>, string]>([
    ["another name", () => undefined, { name: "db1" }, "name is web1 in QEMU, not db1"],
    [
      "other memory",
      () => undefined,
      { memoryBytes: 64 * MIB },
      "memoryBytes is 134217728 in QEMU",
    ],
    ["another machine", () => undefined, { machine: "pc-q35-9.2" }, "machine is pc-q35-10.0"],
    ["another processor", () => undefined, { cpu: "Skylake-Client" }, "cpu is qemu64 in QEMU"],
    ["another feature of it", () => undefined, { cpu: "qemu64,vmx=on" }, "cpu has vmx=off in QEMU"],
    [
      "a disk that is not there",
      () => undefined,
      { disks: [{ id: "disk0", mode: "copy" }] },
      "disks.0.id is no disk of it; it has libvirt-1-format",
    ],
  ])("for %s, with the field", async (_, __, request, text) => {
    await expect(attach(request)).rejects.toThrow(text);
    await expect(attach(request)).rejects.toMatchObject({ code: "guest-not-attachable" });
  });

  test.each<[string, Answers, string]>([
    [
      "has never run",
      { "query-status": { status: "prelaunch", running: false } },
      "Start the guest",
    ],
    ["has left", { "query-status": { status: "postmigrate", running: false } }, "has left"],
    ["waits", { "query-status": { status: "inmigrate", running: false } }, "for a dest agent"],
    [
      "is migrated by others",
      { "query-migrate": { status: "setup" } },
      "somebody else migrates it",
    ],
    [
      "has another stream",
      { "query-migrate-capabilities": [{ capability: "multifd", state: true }] },
      "multifd is on",
    ],
    [
      "has a device that cannot migrate",
      { "query-migrate": { "blocked-reasons": ["VFIO device 0000:01:00.0"] } },
      "VFIO device 0000:01:00.0. Unplug",
    ],
  ])("of a guest that %s", async (_, other, text) => {
    Object.assign(answers, other);
    await expect(attach()).rejects.toThrow(text);
    await expect(attach()).rejects.toMatchObject({ code: "guest-not-attachable" });
  });

  test("of a processor that is whatever the host has", async () => {
    answers["qom-get /machine/cpu0.type"] = "max-x86_64-cpu";
    await expect(attach()).rejects.toMatchObject({ code: "cpu-model-not-migratable" });
  });

  test.each([
    ["elsewhere", "libvirt-1-format", "/dev/null", "no image inside VMFERRY_IMAGE_DIR"],
    ["without a name", "#block123", "web1.raw", "no node name"],
    ["of a long name", "a-node-name-that-is-far-too-long", "web1.raw", "1 to 24 letters"],
  ])("of a guest with a disk %s", async (_, name, file, text) => {
    const [drive] = answers["query-block"] as { inserted: object }[];
    drive!.inserted = node(name, join(imageDir, file));
    if (file.startsWith("/")) drive!.inserted = node(name, file);
    await expect(attach()).rejects.toThrow(text);
  });

  test.each<[string, MarkState, string]>([
    ["has left", "left", "image-handed-off"],
    ["has only a part of", "lazy", "image-incomplete"],
    ["was to get", "filling", "image-incomplete"],
  ])("of a guest over an image that its guest %s", async (_, state, code) => {
    await markImage(state);
    await expect(attach()).rejects.toMatchObject({ code });
  });

  test("by a dest agent, of a QEMU over an image that was to be filled before", async () => {
    answers["query-status"] = { status: "inmigrate", running: false };
    await markImage("filling");
    await expect(attach({}, "prepared")).rejects.toMatchObject({ code: "image-incomplete" });
  });

  test("by a dest agent, of a QEMU that does not wait for a migration", async () => {
    await expect(attach({}, "prepared")).rejects.toThrow("-S -incoming defer");
  });
});

describe("a monitor cannot be used", () => {
  const refusal = (qmp: string): Promise<unknown> => attach({ attach: { qmp } });

  test("that is not there", async () => {
    const promise = refusal(join(directory, "none.sock"));
    await expect(promise).rejects.toMatchObject({ code: "monitor-not-usable" });
    await expect(promise).rejects.toThrow("there is no such socket");
  });

  test("that is no socket", async () => {
    await expect(refusal(join(imageDir, "web1.raw"))).rejects.toThrow("nobody listens there");
  });

  test("that is for people", async () => {
    const path = await listen("QEMU 10.0.2 monitor - type 'help' for more information\r\n(qemu) ");
    await expect(refusal(path)).rejects.toThrow("not a QMP monitor");
  });

  test.each<[string, "first" | number]>([
    ["a thread of another process", process.pid],
    ["the one that the process began with", "first"],
  ])("whose QEMU tells as its processor's thread %s: a relay has it", async (_, thread) => {
    answers["query-cpus-fast"] = [cpu(0, "own"), cpu(1, thread)];
    const promise = attach();
    await expect(promise).rejects.toMatchObject({ code: "monitor-not-usable" });
    await expect(promise).rejects.toThrow(`process ${child!.pid} (`);
    await expect(promise).rejects.toThrow("give the path of QEMU's own socket");
  });

  test("whose QEMU tells no processor", async () => {
    answers["query-cpus-fast"] = [];
    await expect(attach()).rejects.toThrow("no processor, by whose thread it would be known");
  });

  test("that somebody else has open", async () => {
    const path = await listen();
    const other = createConnection(path);
    await once(other, "data");
    await expect(refusal(path)).rejects.toThrow("another program has this monitor open");
    other.destroy();
  });
});

test("whoever lets go leaves the monitor free, and nothing behind", async () => {
  await (await attach()).process.detach();
  await (await attach()).process.detach();
  expect(await readdir(join(directory, "guests", "web1"))).toEqual([]);
});
