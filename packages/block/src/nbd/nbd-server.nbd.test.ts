import { execFile, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ImageFile } from "../image/image-file.ts";
import { NbdTestBench } from "./nbd-test-bench.ts";

/* The server and the clients that everybody else uses. */

const MIB = 1024 * 1024;
const SIZE_BYTES = 64 * MIB;

const execute = promisify(execFile);

/** What has to be there but is not. */
function missingTools(): string[] {
  const missing = ["nbdinfo", "nbdcopy", "nbdkit", "qemu-img", "qemu-io"].filter(
    (tool) => spawnSync(tool, ["--version"]).error !== undefined,
  );
  // fio is built with and without its NBD engine, and says which it has.
  const engines = spawnSync("fio", ["--enghelp"], { encoding: "utf8" });
  if (!/^\s*nbd$/m.test(engines.error === undefined ? engines.stdout : ""))
    missing.push("fio with ioengine=nbd");
  return missing;
}

const missing = missingTools();
const isCi = process.env["CI"] !== undefined;
const isSkipped = missing.length > 0 && !isCi;
const reason = missing.length > 0 ? ` (missing: ${missing.join(", ")})` : "";

let bench: NbdTestBench;
let uri: string;
let children: ChildProcess[];

beforeEach(async () => {
  bench = await NbdTestBench.open({}, SIZE_BYTES);
  uri = `nbd+unix:///disk0?socket=${bench.socketPath}`;
  children = [];
});

afterEach(async () => {
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  await bench.close();
});

/** Its standard output; rejects when it fails. Whatever it leaves lies in the bench's directory. */
async function run(tool: string, ...args: readonly string[]): Promise<string> {
  const { stdout } = await execute(tool, args, { cwd: bench.directory, maxBuffer: 16 * MIB });
  return stdout;
}

/** Random data here and there, zeroes that are written, and holes; its size is no round number. */
async function writeImage(name: string): Promise<Buffer> {
  const content = Buffer.alloc(SIZE_BYTES);
  const file = await open(join(bench.directory, name), "w");
  for (const offset of [0, 5 * MIB + 512, 17 * MIB, SIZE_BYTES - 3 * MIB]) {
    const data = Buffer.concat([randomBytes(2 * MIB), Buffer.alloc(MIB)]);
    data.copy(content, offset);
    await file.write(data, 0, data.length, offset);
  }
  await file.truncate(SIZE_BYTES);
  await file.close();
  return content;
}

test("in CI every tool is there", () => {
  expect(isCi ? missing : []).toEqual([]);
});

describe.skipIf(isSkipped)(`with real clients${reason}`, () => {
  test("nbdinfo reads what is offered", async () => {
    const { exports } = JSON.parse(await run("nbdinfo", "--json", uri)) as { exports: object[] };
    expect(exports).toHaveLength(1);
    expect(exports[0]).toMatchObject({
      "export-name": "disk0",
      "export-size": SIZE_BYTES,
      contexts: ["base:allocation"],
      is_read_only: false,
      can_cache: true,
      can_df: true,
      can_fast_zero: false,
      can_flush: true,
      can_fua: true,
      can_multi_conn: false,
      can_trim: true,
      can_zero: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MIB,
    });
    const list = await run("nbdinfo", "--list", `nbd+unix:///?socket=${bench.socketPath}`);
    expect(list).toContain('export="disk0":');
  });

  test("nbdinfo reads a read-only export as that", async () => {
    await bench.serve({ readOnly: true });
    const { exports } = JSON.parse(await run("nbdinfo", "--json", uri)) as { exports: object[] };
    expect(exports[0]).toMatchObject({ is_read_only: true, can_trim: false, can_zero: false });
    await expect(run("qemu-io", "-f", "raw", "-c", "write 0 4k", uri)).rejects.toThrow();
    expect(bench.device.calls.map(({ operation }) => operation)).not.toContain("write");
  });

  test("nbdinfo maps data and holes, of a small disk and of one beyond 32 bits", async () => {
    await bench.device.write(8 * MIB, Buffer.alloc(MIB, 1));
    const map = JSON.parse(await run("nbdinfo", "--map", "--json", uri)) as object[];
    expect(map).toMatchObject([
      { offset: 0, length: 8 * MIB, type: 3 },
      { offset: 8 * MIB, length: MIB, type: 0 },
      { offset: 9 * MIB, length: SIZE_BYTES - 9 * MIB, type: 3 },
    ]);
    const sizeBytes = 2 ** 42 + 1;
    const device = Object.assign(Object.create(bench.device) as typeof bench.device, {
      sizeBytes,
      extents: (offset: number) =>
        Promise.resolve([{ offset, length: sizeBytes - offset, kind: "zero" as const }]),
    });
    await bench.serve({ device });
    const totals = JSON.parse(await run("nbdinfo", "--map", "--totals", "--json", uri)) as object[];
    expect(totals).toMatchObject([{ size: sizeBytes, type: 3 }]);
  });

  test("nbdcopy copies there and back", async () => {
    const content = await writeImage("image.raw");
    await run("nbdcopy", "--flush", "image.raw", uri);
    expect(bench.device.content.equals(content)).toBe(true);
    expect(bench.device.calls.map(({ operation }) => operation)).toContain("flush");
    await run("nbdcopy", uri, "copy.raw");
    expect((await readFile(join(bench.directory, "copy.raw"))).equals(content)).toBe(true);
    await run("nbdcopy", "--synchronous", "--no-extents", uri, "again.raw");
    expect((await readFile(join(bench.directory, "again.raw"))).equals(content)).toBe(true);
  });

  test("nbdcopy copies over what was there, and from nbdkit", async () => {
    bench.device.content.fill(0xff);
    await bench.device.write(0, Buffer.alloc(SIZE_BYTES, 0xff));
    const content = await writeImage("image.raw");
    await run("nbdcopy", "image.raw", uri);
    expect(bench.device.content.equals(content)).toBe(true);
    const pattern = ["[", "nbdkit", "--exit-with-parent", "pattern", `size=${SIZE_BYTES}`, "]"];
    await run("nbdcopy", "--requests=64", "--", ...pattern, uri);
    for (let offset = 0; offset < SIZE_BYTES; offset += 4096) {
      expect(bench.device.content.readBigUInt64BE(offset)).toBe(BigInt(offset));
    }
  });

  test("qemu-img reads, converts both ways, and compares", async () => {
    const content = await writeImage("image.raw");
    const info = JSON.parse(await run("qemu-img", "info", "--output=json", uri)) as object;
    expect(info).toMatchObject({ format: "raw", "virtual-size": SIZE_BYTES });
    await run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", "image.raw", uri);
    expect(bench.device.content.equals(content)).toBe(true);
    await run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, "copy.qcow2");
    for (const other of ["copy.qcow2", "image.raw"]) {
      expect(await run("qemu-img", "compare", other, uri)).toContain("Images are identical");
    }
    bench.device.content[17 * MIB]! ^= 1;
    await expect(run("qemu-img", "compare", "image.raw", uri)).rejects.toMatchObject({
      code: 1,
      stdout: expect.stringContaining("Content mismatch at offset 17825792") as string,
    });
  });

  test("qemu-img sees holes where the device has them", async () => {
    await bench.device.write(8 * MIB, Buffer.alloc(MIB, 1));
    const map = JSON.parse(await run("qemu-img", "map", "--output=json", uri)) as object[];
    expect(map).toMatchObject([
      { start: 0, length: 8 * MIB, data: false, zero: true },
      { start: 8 * MIB, length: MIB, data: true, zero: false },
      { start: 9 * MIB, data: false, zero: true },
    ]);
  });

  test("qemu-io writes, zeroes, discards and flushes, and reads back what it should", async () => {
    const commands = [
      "write -P 1 0 4M",
      "writev -P 2 1M 4k 8k 512",
      "write -f -P 3 2M 64k",
      "write -z 2M 4k",
      "write -z -u 3M 512k",
      "write -z -f 3584k 64k",
      "flush",
      "aio_write -P 4 4M 1M",
      "aio_write -P 5 5M 1M",
      "aio_write -f -P 6 6M 1M",
      "aio_flush",
      "discard 6M 1M",
      "write -P 7 63M 1M",
      "write -P 8 513 1",
      "write -P 9 32M 16M",
      "read -P 1 0 512",
      "read -P 1 512 1",
      "read -P 8 513 1",
      "read -P 1 514 1048062",
      "readv -P 2 1M 4k 8k 512",
      "read -P 1 1061376 1035776",
      "read -P 0 2M 4k",
      "read -P 3 2101248 60k",
      "read -P 0 3M 576k",
      "read -P 4 4M 1M",
      "read -P 5 5M 1M",
      "read -P 0 6M 1M",
      "read -P 7 63M 1M",
      "read -P 9 32M 16M",
    ];
    const output = await run(
      "qemu-io",
      ...["-f", "raw", "-d", "unmap", ...commands.flatMap((command) => ["-c", command]), uri],
    );
    expect(output).not.toMatch(/fail|error/i);
    expect(output.match(/^read /gm)).toHaveLength(14);
    // QEMU keeps FUA for the server where it is offered, and turns -u into a zeroing that may punch.
    const zeroings = bench.device.calls.filter(({ operation }) => operation === "write-zeroes");
    expect(zeroings.map(({ mayPunch }) => mayPunch)).toEqual([false, true, false]);
    expect(bench.device.calls.map(({ operation }) => operation)).toContain("trim");
  });

  test.each([
    { iodepth: 1, block: "bs=4k", rw: "randwrite" },
    { iodepth: 16, block: "bsrange=512-64k", rw: "randrw" },
    { iodepth: 64, block: "bsrange=512-256k", rw: "randwrite" },
    { iodepth: 256, block: "bs=4k", rw: "randwrite" },
    { iodepth: 8, block: "bs=4M", rw: "write" },
    { iodepth: 32, block: "bs=64k", rw: "trimwrite" },
  ])(
    "fio finds every block as it wrote it ($rw, $block, iodepth $iodepth)",
    async ({ iodepth, block, rw }) => {
      const output = await run(
        "fio",
        ...["--name=verify", "--ioengine=nbd", `--uri=${uri}`, `--rw=${rw}`],
        ...[`--${block}`, `--iodepth=${iodepth}`, `--size=${SIZE_BYTES}`],
        ...["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--do_verify=1"],
        ...["--fsync=500", "--output-format=json"],
      );
      const report = JSON.parse(output.slice(output.indexOf("{"))) as {
        jobs: { error: number; read: { total_ios: number }; write: { total_ios: number } }[];
      };
      const job = report.jobs[0]!;
      expect(job.error).toBe(0);
      expect(job.write.total_ios).toBeGreaterThan(0);
      expect(job.read.total_ios).toBeGreaterThanOrEqual(job.write.total_ios);
    },
    60_000,
  );

  test("fio and qemu-img agree with the image file behind the export", async () => {
    await writeImage("disk.raw");
    const device = await ImageFile.open(join(bench.directory, "disk.raw"));
    try {
      await bench.serve({ device });
      expect(await run("qemu-img", "compare", "disk.raw", uri)).toContain("Images are identical");
      await run(
        "fio",
        ...["--name=verify", "--ioengine=nbd", `--uri=${uri}`, "--rw=randwrite", "--iodepth=32"],
        ...["--bsrange=512-64k", `--size=${SIZE_BYTES}`, "--fsync=100"],
        ...["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--do_verify=1"],
      );
      expect(await run("qemu-img", "compare", "disk.raw", uri)).toContain("Images are identical");
    } finally {
      await bench.server.close();
      await device.close();
    }
  });

  test("QEMU's client re-sends what was under way when the server comes back", async () => {
    const options = ["driver=nbd", "server.type=unix", `server.path=${bench.socketPath}`];
    const qemuIo = spawn(
      "qemu-io",
      ["--image-opts", [...options, "export=disk0", "reconnect-delay=30"].join(",")],
      { cwd: bench.directory, stdio: ["pipe", "pipe", "inherit"] },
    );
    children.push(qemuIo);
    let output = "";
    qemuIo.stdout.setEncoding("utf8").on("data", (text) => {
      output += String(text);
    });
    const writes = (): number =>
      bench.device.calls.filter(({ operation }) => operation === "write").length;
    bench.device.hold();
    qemuIo.stdin.write("write -P 1 0 1M\n");
    await expect.poll(writes, { timeout: 10_000 }).toBe(1);
    const serving = bench.serve();
    bench.device.release();
    await serving;
    await expect.poll(writes, { timeout: 20_000 }).toBe(2);
    qemuIo.stdin.end("write -P 2 1M 1M\nread -P 1 0 1M\nread -P 2 1M 1M\nquit\n");
    await once(qemuIo, "close");
    // It shows what it has done only at its end.
    expect(output.match(/(wrote|read) 1048576/g)).toHaveLength(4);
    expect(output).not.toMatch(/fail|error/i);
    expect(writes()).toBe(3);
    expect(bench.events.filter((event) => event === "attached")).toHaveLength(2);
  });
});
