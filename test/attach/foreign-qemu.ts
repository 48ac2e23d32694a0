// A QEMU that somebody else starts, with the command line that libvirt writes: nodes and objects in
// JSON, and a monitor whose socket another process has opened and handed over.

import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { GUEST_CACHE, qemusUnder, type Lab } from "@vmferry/testkit";
import { pause } from "../moving-guest.ts";

const MIB = 1024 * 1024;
const START_MS_MAX = 20_000;

export interface ForeignQemuOptions {
  readonly name: string;
  /** Absolute. */
  readonly disk?: string;
  readonly memoryMib?: number;
  /** Kernel and initrd are those of this directory. */
  readonly images?: string;
  readonly cmdline?: string;
  readonly machine?: string;
  /** Whatever else is on the command line. */
  readonly extra?: readonly string[];
  /** For a guest that is to come. */
  readonly incoming?: boolean;
}

/** Opens the socket, hands it to QEMU as descriptor 3, and lives as long as QEMU does. */
const MANAGER = `
use Socket;
$^F = 255;
my $path = shift;
socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
bind($s, sockaddr_un($path)) or die "bind: $!";
listen($s, 1) or die "listen: $!";
my $fd = fileno($s);
my $pid = fork();
if ($pid == 0) { exec(map { s/__FD__/$fd/r } @ARGV) or die "exec: $!"; }
close($s);
waitpid($pid, 0);
`;

export class ForeignQemu {
  readonly directory: string;
  readonly qmp: string;
  readonly serialLog: string;
  readonly #manager: ChildProcess;

  private constructor(directory: string, manager: ChildProcess) {
    this.directory = directory;
    this.qmp = join(directory, "monitor.sock");
    this.serialLog = join(directory, "console.log");
    this.#manager = manager;
  }

  /** Resolves when QEMU has begun. Its files are in a directory of its own beside those of the lab's agents. */
  static async start(lab: Lab, side: string, options: ForeignQemuOptions): Promise<ForeignQemu> {
    const directory = join(lab.directory, "foreign", side, options.name);
    mkdirSync(directory, { recursive: true });
    const log = openSync(join(directory, "qemu.log"), "a");
    const command = ["qemu-system-x86_64", ...commandLine(directory, options)];
    const manager = spawn("perl", ["-e", MANAGER, join(directory, "monitor.sock"), ...command], {
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    const qemu = new ForeignQemu(directory, manager);
    const deadlineMs = performance.now() + START_MS_MAX;
    // QEMU opens it behind its monitor.
    while (!existsSync(qemu.serialLog)) {
      const isLate = performance.now() > deadlineMs || manager.exitCode !== null;
      if (isLate) throw new Error(readFileSync(join(directory, "qemu.log"), "utf8"));
      await pause(20);
    }
    return qemu;
  }

  get pid(): number {
    return qemusUnder(this.directory)[0] ?? 0;
  }

  get isRunning(): boolean {
    return this.pid !== 0;
  }

  async end(): Promise<void> {
    const exited = new Promise((resolve) => this.#manager.once("exit", resolve));
    if (this.#manager.exitCode !== null) return;
    for (const pid of qemusUnder(this.directory)) process.kill(pid, "SIGKILL");
    await exited;
  }
}

function commandLine(directory: string, options: ForeignQemuOptions): string[] {
  const { name, disk, memoryMib = 128, images = GUEST_CACHE, incoming = false } = options;
  const { cmdline = "console=ttyS0", machine = "pc-q35-10.0", extra = [] } = options;
  const json = (value: object): string => JSON.stringify(value);
  const memory = { "qom-type": "memory-backend-memfd", id: "pc.ram", share: true };
  const canonical = { "x-use-canonical-path-for-ramblock-id": false };
  return [
    ...["-name", `guest=${name},debug-threads=on`, "-nodefaults", "-no-user-config"],
    ...["-display", "none", "-msg", "timestamp=on"],
    ...["-machine", `${machine},usb=off,dump-guest-core=off,memory-backend=pc.ram`],
    ...["-accel", "tcg", "-cpu", "qemu64", "-m", `size=${memoryMib * 1024}k`],
    ...["-object", json({ ...memory, ...canonical, size: memoryMib * MIB })],
    ...["-smp", "1,sockets=1,cores=1,threads=1"],
    ...["-uuid", "4dea22b3-1d52-48f3-a516-782e98ab3fa0"],
    ...["-chardev", "socket,id=charmonitor,fd=__FD__,server=on,wait=off"],
    ...["-mon", "chardev=charmonitor,id=monitor,mode=control"],
    ...["-kernel", join(images, "vmlinuz"), "-initrd", join(images, "initrd.img")],
    ...["-append", cmdline],
    ...(disk === undefined ? [] : diskArguments(disk, json)),
    ...["-chardev", `file,id=charserial0,path=${join(directory, "console.log")},append=on`],
    "-device",
    json({ driver: "isa-serial", chardev: "charserial0", id: "serial0", index: 0 }),
    ...extra,
    ...(incoming ? ["-S", "-incoming", "defer"] : []),
  ];
}

function diskArguments(filename: string, json: (value: object) => string): string[] {
  const storage = "libvirt-1-storage";
  const format = "libvirt-1-format";
  const unmap = { discard: "unmap" };
  return [
    "-blockdev",
    json({ driver: "file", filename, "node-name": storage, "auto-read-only": true, ...unmap }),
    ...[
      "-blockdev",
      json({ "node-name": format, "read-only": false, driver: "raw", file: storage }),
    ],
    "-device",
    json({
      ...{ driver: "virtio-blk-pci", bus: "pcie.0", addr: "0x4" },
      ...{ drive: format, id: "virtio-disk0", cyls: 16383, heads: 16, secs: 63 },
    }),
  ];
}
