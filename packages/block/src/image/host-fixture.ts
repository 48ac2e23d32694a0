/** Loop devices and mounts for tests. They need root, and go away with `dispose`. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** In CI tests that need root are not left out: there they fail instead. */
export const MAY_SKIP_ROOT_TESTS = process.geteuid?.() !== 0 && process.env["CI"] === undefined;

export class HostFixture {
  readonly directory: string;
  readonly #undo: (() => Promise<unknown>)[] = [];

  static async make(): Promise<HostFixture> {
    return new HostFixture(await mkdtemp(join(tmpdir(), "host-")));
  }

  private constructor(directory: string) {
    this.directory = directory;
    this.#undo.push(() => rm(directory, { recursive: true }));
  }

  async file(path: string, sizeBytes: number): Promise<string> {
    await writeFile(path, "");
    await truncate(path, sizeBytes);
    return path;
  }

  /** The path of a device whose content is in the file. */
  async loopDevice(backingFile: string): Promise<string> {
    const { stdout } = await run("losetup", ["-f", "--show", backingFile]);
    const device = stdout.trim();
    this.#undo.push(() => run("losetup", ["-d", device]));
    return device;
  }

  /** The path of an empty file system, such as `tmpfs`. */
  async mount(type: string, options: readonly string[] = []): Promise<string> {
    const path = await mkdtemp(join(this.directory, `${type}-`));
    await mkdir(path, { recursive: true });
    await run("mount", ["-t", type, ...options, "none", path]);
    this.#undo.push(() => run("umount", [path]));
    return path;
  }

  /** With whatever file system it holds. */
  async mountDevice(device: string): Promise<void> {
    const path = await mkdtemp(join(this.directory, "device-"));
    await run("mount", [device, path]);
    this.#undo.push(() => run("umount", [path]));
  }

  /** In the order opposite to the making. The first failure is thrown when all is tried. */
  async dispose(): Promise<void> {
    const failures: unknown[] = [];
    for (const undo of this.#undo.splice(0).reverse()) {
      await undo().catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }
}
