// Two agents on this machine with the demo guest at hand: what end-to-end tests, the demo and the
// benchmarks begin with. Everything it makes lies in one temporary directory, and `close` ends
// every process that was started, guests included.

import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { AgentError, systemClock } from "@vmferry/core";
import type { GuestDefinitionInput } from "@vmferry/protocol";
import { AgentProcess, type AgentProcessOptions } from "./agent-process.ts";
import { writeDiskImage, type DiskImageContent } from "./disk-image.ts";
import { GuestConsole } from "./guest-console.ts";

/** What only one life of an agent has. */
export type AgentLife = Pick<AgentProcessOptions, "environment" | "onSpawn">;

export interface LabOptions {
  readonly source?: Omit<AgentProcessOptions, "role">;
  readonly dest?: Omit<AgentProcessOptions, "role">;
  /** What the source calls the dest's address; the dest's own peer port on loopback by default. */
  readonly peerUrl?: (port: number) => string;
  /** One image directory for both agents, as hosts with shared storage have it; false by default. */
  readonly sharedImages?: boolean;
}

/** `{ id: "disk0", image: "disk0.raw" }`; the image is one that `makeDisk` has made. */
export type GuestDisks = NonNullable<GuestDefinitionInput["disks"]>;

export interface DemoGuest {
  readonly name?: string;
  readonly machine?: string;
  readonly memoryMib: number;
  /** Parameters of the workload: `{ mem: "512M", rate: "2000" }`. */
  readonly workload: Readonly<Record<string, string>>;
  /** The workload works on the first of them. */
  readonly disks?: GuestDisks;
}

export class LabError extends AgentError<{ readonly code: "demo-guest-not-built" }> {}

/** The folder with kernel and initramfs that `scripts/build-guest.sh` fills. */
export const GUEST_CACHE =
  process.env["VMFERRY_GUEST_CACHE"] ??
  fileURLToPath(new URL("../../../.cache/guest", import.meta.url));

/** guest/README.md tells what each of them is for. */
const KERNEL_PARAMETERS = "console=ttyS0 quiet panic=-1 tsc=unstable no_timer_check";

export class Lab {
  readonly directory: string;
  readonly #options: LabOptions;
  readonly #consoles: GuestConsole[] = [];
  #source: AgentProcess | null = null;
  #dest: AgentProcess | null = null;

  private constructor(directory: string, options: LabOptions) {
    this.directory = directory;
    this.#options = options;
  }

  static async open(options: LabOptions = {}): Promise<Lab> {
    if (!existsSync(join(GUEST_CACHE, "initrd.img"))) {
      throw new LabError("there is no demo guest yet: run scripts/setup.sh", {
        code: "demo-guest-not-built",
      });
    }
    const lab = new Lab(await mkdtemp(join(tmpdir(), "vmferry-")), options);
    try {
      for (const directory of new Set([lab.imagePath("source"), lab.imagePath("dest")])) {
        await mkdir(directory);
        for (const file of ["vmlinuz", "initrd.img"]) {
          await copyFile(join(GUEST_CACHE, file), join(directory, file));
        }
      }
      await lab.startDest();
      await lab.startSource();
      return lab;
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  get source(): AgentProcess {
    return this.#source!;
  }

  get dest(): AgentProcess {
    return this.#dest!;
  }

  /** Also after it was killed: a new process over the same state. */
  async startDest(life: AgentLife = {}): Promise<AgentProcess> {
    const port = this.#dest?.peerPort ?? 0;
    const { flags = [], ...rest } = withLife(this.#options.dest, life);
    const own = this.#flags("dest", flags);
    if (!flags.includes("--peer-listen")) own.push("--peer-listen", `127.0.0.1:${port}`);
    this.#dest = await AgentProcess.start({ ...rest, role: "dest", flags: own });
    return this.#dest;
  }

  async startSource(life: AgentLife = {}): Promise<AgentProcess> {
    const { flags = [], ...rest } = withLife(this.#options.source, life);
    const own = this.#flags("source", flags);
    const port = this.dest.peerPort!;
    const url = this.#options.peerUrl?.(port) ?? `ws://127.0.0.1:${port}`;
    own.push("--peers", `dest=${url},nowhere=${new URL(url).protocol}//127.0.0.1:9`);
    this.#source = await AgentProcess.start({ ...rest, role: "source", flags: own });
    return this.#source;
  }

  /** A file in the agent's image directory, or that directory itself. */
  imagePath(side: "source" | "dest", name = ""): string {
    const isShared = this.#options.sharedImages === true;
    return join(this.directory, side === "source" || isShared ? "images" : "images-d", name);
  }

  /** Makes a raw image at the source for a guest's disk, and returns its path. */
  async makeDisk(name: string, sizeBytes: number, content?: DiskImageContent): Promise<string> {
    const path = this.imagePath("source", name);
    await writeDiskImage(path, sizeBytes, content);
    return path;
  }

  /** Starts a demo guest at the source and waits until its workload works. */
  async bootGuest(guest: DemoGuest): Promise<GuestConsole> {
    const { name = "demo", machine = "pc-q35-10.0", memoryMib, workload, disks = [] } = guest;
    const parameters = Object.entries(workload).map(([key, value]) => `vmferry.${key}=${value}`);
    const object = await this.source.api.startGuest({
      name,
      machine,
      memoryBytes: memoryMib * 1024 * 1024,
      boot: {
        kernel: "vmlinuz",
        initrd: "initrd.img",
        cmdline: [KERNEL_PARAMETERS, ...parameters].join(" "),
      },
      disks,
    });
    const console = this.follow(object.serialLog!);
    await console.waitFor(({ ready, latestReport }) => ready !== null && latestReport !== null, {
      timeoutMs: 120_000,
    });
    return console;
  }

  /** Follows a serial log; the dest's of a guest is there before the guest is. */
  follow(path: string): GuestConsole {
    const console = GuestConsole.open(path, { clock: systemClock });
    this.#consoles.push(console);
    return console;
  }

  /** Where the dest's QEMU writes the guest's console. */
  destSerialLog(name = "demo"): string {
    return join(this.directory, "d", "guests", name, "serial.log");
  }

  async close(): Promise<void> {
    for (const console of this.#consoles) console.close();
    // Killed agents do not start anything any more; then the guests they recorded are ended.
    await Promise.allSettled([this.#source?.kill(), this.#dest?.kill()]);
    await this.#endGuests();
    await rm(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }

  /** By the process table: a killed agent may not have recorded its guest. */
  async #endGuests(): Promise<void> {
    for (const entry of await readdir("/proc")) {
      if (!/^\d+$/.test(entry)) continue;
      const commandLine = await readFile(`/proc/${entry}/cmdline`, "utf8").catch(() => "");
      const isQemu = /^[^\0]*qemu-system/.test(commandLine);
      if (isQemu && commandLine.includes(this.directory)) process.kill(Number(entry), "SIGKILL");
    }
  }

  #flags(side: "source" | "dest", flags: readonly string[]): string[] {
    return [
      ...["--state-dir", join(this.directory, side === "source" ? "s" : "d")],
      ...["--image-dir", this.imagePath(side)],
      ...(flags.includes("--api-listen") ? [] : ["--api-listen", "127.0.0.1:0"]),
      ...flags,
    ];
  }
}

function withLife(
  options: Omit<AgentProcessOptions, "role"> = {},
  life: AgentLife,
): Omit<AgentProcessOptions, "role"> {
  return { ...options, ...life, environment: { ...options.environment, ...life.environment } };
}
