import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { DiskBacking } from "../qmp/block-nodes.ts";
import type { GuestDefinition } from "./guest-definition.ts";
import { qemuArguments, type GuestArgumentPaths } from "./qemu-arguments.ts";

const definition: GuestDefinition = {
  name: "web1",
  machine: "pc-q35-7.2",
  accel: "tcg",
  cpu: "qemu64",
  vcpus: 2,
  memoryBytes: 536870912,
  boot: { kernel: "vmlinuz", initrd: "initrd.img", cmdline: "console=ttyS0" },
  disks: [
    { id: "disk0", image: "web1.raw", format: "raw", mode: "copy" },
    { id: "disk1", image: "data.raw", format: "raw", mode: "scratch" },
  ],
  serial: "file",
  uuid: "11111111-2222-3333-4444-555555555555",
};

const paths: GuestArgumentPaths = {
  qmpSocket: "/run/web1/qmp.sock",
  standby: "/run/web1/standby",
  serialLog: "/run/web1/serial.log",
  kernel: "/images/vmlinuz",
  initrd: "/images/initrd.img",
  disks: new Map<string, DiskBacking>([
    ["disk0", { kind: "file", path: "/images/web1.raw" }],
    ["disk1", { kind: "host-device", path: "/images/data" }],
  ]),
};

interface Overrides {
  readonly definition?: Partial<GuestDefinition>;
  readonly paths?: Partial<GuestArgumentPaths>;
  readonly incoming?: boolean;
}

function argumentsOf(overrides: Overrides = {}): string[] {
  return qemuArguments({
    definition: { ...definition, ...overrides.definition },
    accel: "tcg",
    paths: { ...paths, ...overrides.paths },
    incoming: overrides.incoming ?? false,
  });
}

/** The values of every use of an option. */
function valuesOf(option: string, commandLine: readonly string[]): string[] {
  return commandLine.filter((_, index) => commandLine[index - 1] === option);
}

/** A naive twin of QEMU's option parser: commas separate, two commas are one, `=` divides once. */
function parseOptions(value: string): Record<string, string> {
  const parts = value
    .replaceAll(",,", "\u0000")
    .split(",")
    .map((part) => part.replaceAll("\u0000", ","));
  return Object.fromEntries(
    parts.map((part) => {
      const at = part.indexOf("=");
      return at === -1 ? ["", part] : [part.slice(0, at), part.slice(at + 1)];
    }),
  );
}

function fieldOfError(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    const { detail } = error as { detail?: { code: string; field: string } };
    return detail?.code === "guest-definition-invalid" ? detail.field : error;
  }
  return null;
}

describe("qemuArguments", () => {
  it("describes the whole guest", () => {
    expect(argumentsOf().join("\n")).toBe(
      [
        ["-nodefaults", "-no-user-config", "-display", "none", "-msg", "timestamp=on"],
        ["-sandbox"],
        ["on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
        ["-only-migratable"],
        ["-name", "guest=web1", "-uuid", "11111111-2222-3333-4444-555555555555"],
        ["-machine", "pc-q35-7.2,accel=tcg,dump-guest-core=off"],
        ["-cpu", "qemu64", "-smp", "cpus=2", "-m", "size=536870912B"],
        ["-kernel", "/images/vmlinuz", "-initrd", "/images/initrd.img"],
        ["-append", "console=ttyS0"],
        ["-chardev", "socket,id=qmp0,path=/run/web1/qmp.sock,server=on,wait=off"],
        ["-mon", "chardev=qmp0,mode=control"],
        ["-chardev", "file,id=serial0,path=/run/web1/serial.log,append=on"],
        ["-serial", "chardev:serial0"],
        ["-blockdev"],
        [
          '{"driver":"file","node-name":"disk0-file","discard":"unmap","filename":"/images/web1.raw"}',
        ],
        ["-blockdev"],
        ['{"driver":"raw","node-name":"disk0","discard":"unmap","file":"disk0-file"}'],
        ["-device"],
        [
          "virtio-blk-pci,id=disk0-device,drive=disk0,addr=0x4,cyls=16383,heads=16,secs=63,werror=stop,rerror=stop",
        ],
        ["-blockdev"],
        [
          '{"driver":"host_device","node-name":"disk1-file","discard":"unmap","filename":"/images/data"}',
        ],
        ["-blockdev"],
        ['{"driver":"raw","node-name":"disk1","discard":"unmap","file":"disk1-file"}'],
        ["-device"],
        [
          "virtio-blk-pci,id=disk1-device,drive=disk1,addr=0x5,cyls=16383,heads=16,secs=63,werror=stop,rerror=stop",
        ],
      ]
        .flat()
        .join("\n"),
    );
  });

  it("differs for an incoming guest by how it starts, and by a standby monitor", () => {
    expect(argumentsOf({ incoming: true, paths: { standby: "/run/a,b/standby" } })).toEqual([
      ...argumentsOf(),
      ...["-S", "-incoming", "defer"],
      ...["-chardev", "pipe,id=standby,path=/run/a,,b/standby"],
      ...["-mon", "chardev=standby,mode=control"],
    ]);
  });

  it("leaves out what the definition leaves out", () => {
    const { name, machine, accel, cpu, vcpus, memoryBytes, serial } = definition;
    const commandLine = qemuArguments({
      definition: { name, machine, accel, cpu, vcpus, memoryBytes, serial, disks: [] },
      accel: "kvm",
      paths: { ...paths, kernel: null, initrd: null },
      incoming: false,
      sandbox: false,
    });
    for (const option of ["-kernel", "-initrd", "-append", "-uuid", "-blockdev", "-sandbox"]) {
      expect(commandLine).not.toContain(option);
    }
    expect(valuesOf("-machine", commandLine)).toEqual(["pc-q35-7.2,accel=kvm,dump-guest-core=off"]);
  });

  it("puts a qcow2 disk on its file, whatever backing file the image names", () => {
    const disks = [{ ...definition.disks[0]!, format: "qcow2" as const }];
    const nodes = valuesOf("-blockdev", argumentsOf({ definition: { ...definition, disks } }));
    expect(nodes.map((node) => JSON.parse(node) as unknown)).toEqual([
      expect.objectContaining({ driver: "file", "node-name": "disk0-file" }),
      {
        driver: "qcow2",
        "node-name": "disk0",
        discard: "unmap",
        file: "disk0-file",
        backing: null,
      },
    ]);
  });

  it("puts a disk on an export of the agent", () => {
    const backing: DiskBacking = {
      kind: "nbd",
      socketPath: "/run/nbd.sock",
      exportName: "disk0",
      reconnectDelaySeconds: 60,
    };
    const disks = new Map([...paths.disks, ["disk0", backing] as const]);
    const nodes = valuesOf("-blockdev", argumentsOf({ paths: { disks } }));
    expect(nodes.slice(0, 2).map((node) => JSON.parse(node) as unknown)).toEqual([
      {
        driver: "nbd",
        "node-name": "disk0-nbd",
        discard: "unmap",
        server: { type: "unix", path: "/run/nbd.sock" },
        export: "disk0",
        "reconnect-delay": 60,
      },
      { driver: "raw", "node-name": "disk0", discard: "unmap", file: "disk0-nbd" },
    ]);
  });

  it("gives every disk an address of its own below the south bridge", () => {
    const ids = Array.from({ length: 24 }, (_, index) => `d${index}`);
    const devices = valuesOf(
      "-device",
      argumentsOf({
        definition: {
          disks: ids.map((id) => ({ id, image: id, format: "raw", mode: "copy" })),
        },
        paths: { disks: new Map(ids.map((id) => [id, { kind: "file", path: `/images/${id}` }])) },
      }),
    );
    const addresses = devices.map((device) => Number(parseOptions(device)["addr"]));
    expect(new Set(addresses).size).toBe(24);
    expect(Math.min(...addresses)).toBeGreaterThan(3);
    expect(Math.max(...addresses)).toBeLessThan(31);
  });

  it.each([
    '"},{"execute":"quit',
    "a,process=b",
    "a,,b",
    ",",
    ",,,",
    "-S",
    "guest=x,debug-threads=on",
    "a b'c\"d\\e",
  ])("lets the name %j and paths with it smuggle nothing", (text) => {
    expectNothingSmuggled(text);
  });

  it("lets no name and no path smuggle anything", () => {
    const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
    const texts = fc
      .array(fc.constantFrom(",", "=", '"', "a", "\\", "{", "}", ":", "-", "é", " ", "id=x"), {
        minLength: 1,
        maxLength: 12,
      })
      .map((parts) => parts.join(""));
    fc.assert(fc.property(texts, expectNothingSmuggled), { seed, numRuns: 500 });
  });

  it("takes boot values as they are, whatever they look like", () => {
    const commandLine = argumentsOf({
      definition: { boot: { kernel: "k", initrd: "i", cmdline: "-device x,,y=z" } },
      paths: { kernel: "/images/-S,a=b" },
    });
    expect(valuesOf("-append", commandLine)).toEqual(["-device x,,y=z"]);
    expect(valuesOf("-kernel", commandLine)).toEqual(["/images/-S,a=b"]);
  });

  it("refuses an initrd that QEMU could take for a list of files", () => {
    const initrd = "/images/x,/etc/shadow";
    expect(fieldOfError(() => argumentsOf({ paths: { initrd } }))).toBe("boot.initrd");
  });

  it.each<[string, Partial<GuestDefinition>]>([
    ["name", { name: "" }],
    ["name", { name: "a\nb" }],
    ["name", { name: "a\0b" }],
    ["name", { name: "x".repeat(129) }],
    ["machine", { machine: "pc-q35-7.2,dump-guest-core=on" }],
    ["machine", { machine: "" }],
    ["accel", { accel: "xen" as "kvm" }],
    ["cpu", { cpu: "qemu64,migratable=maybe" }],
    ["cpu", { cpu: "qemu64,,x" }],
    ["cpu", { cpu: "-device" }],
    ["vcpus", { vcpus: 0 }],
    ["vcpus", { vcpus: 1.5 }],
    ["vcpus", { vcpus: 256 }],
    ["memoryBytes", { memoryBytes: 536870913 }],
    ["memoryBytes", { memoryBytes: 0 }],
    ["memoryBytes", { memoryBytes: NaN }],
    ["uuid", { uuid: "x" }],
    ["serial", { serial: "none" as "file" }],
    ["boot.cmdline", { boot: { kernel: "k", cmdline: "a\nb" } }],
    ["disks[0].id", { disks: [{ ...definition.disks[0]!, id: "disk0,share-rw=on" }] }],
    ["disks[0].id", { disks: [{ ...definition.disks[0]!, id: "x".repeat(25) }] }],
    ["disks[0].format", { disks: [{ ...definition.disks[0]!, format: "vmdk" as "raw" }] }],
    ["disks[1].id", { disks: [definition.disks[0]!, definition.disks[0]!] }],
    ["disks", { disks: Array.from({ length: 25 }, () => definition.disks[0]!) }],
  ])("refuses a definition with a bad %s", (field, change) => {
    expect(fieldOfError(() => argumentsOf({ definition: change }))).toBe(field);
  });

  it("accepts CPU features that are switched by name", () => {
    const commandLine = argumentsOf({ definition: { cpu: "Skylake-Server-v4,vmx=off,sse4.1=on" } });
    expect(valuesOf("-cpu", commandLine)).toEqual(["Skylake-Server-v4,vmx=off,sse4.1=on"]);
  });
});

function expectNothingSmuggled(text: string): void {
  const hostile = {
    qmpSocket: `/run/${text}/qmp.sock`,
    serialLog: `/run/${text}/serial.log`,
    disks: new Map<string, DiskBacking>([
      ["disk0", { kind: "file", path: `/images/${text}` }],
      ["disk1", { kind: "file", path: "/images/data" }],
    ]),
  };
  const commandLine = argumentsOf({ definition: { name: text }, paths: hostile });
  expect(commandLine).toHaveLength(argumentsOf().length);
  expect(valuesOf("-name", commandLine).map(parseOptions)).toEqual([{ guest: text }]);
  expect(valuesOf("-chardev", commandLine).map(parseOptions)).toEqual([
    { "": "socket", id: "qmp0", path: hostile.qmpSocket, server: "on", wait: "off" },
    { "": "file", id: "serial0", path: hostile.serialLog, append: "on" },
  ]);
  expect(JSON.parse(valuesOf("-blockdev", commandLine)[0]!)).toEqual({
    driver: "file",
    "node-name": "disk0-file",
    discard: "unmap",
    filename: `/images/${text}`,
  });
}
