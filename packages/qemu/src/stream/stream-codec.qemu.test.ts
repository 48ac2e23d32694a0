import { spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync, writeSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { Deferred } from "@vmferry/core";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { BUSY_GUEST_COUNTER_AT, BUSY_GUEST_PAGE_COUNT, busyGuestKernel } from "./lab-guest.ts";
import { connectWhenThere, eventually, LAB_QEMU_BINARY, LabQemu } from "./lab-qemu.ts";
import { MigrationCopy } from "./migration-copy.ts";
import { ReturnPathDecoder } from "./return-path-decoder.ts";
import { encodePong, encodeShut } from "./return-path-encoder.ts";
import type { ReturnPathMessage } from "./return-path-message.ts";
import { COMMAND } from "./stream-command.ts";
import { StreamDecoder } from "./stream-decoder.ts";
import { PAGE_BYTES } from "./stream-format.ts";

/*
 * The codec between two real QEMUs: what one sends is decoded, thinned out to the latest version of
 * each page, shuffled, encoded again and loaded by the other; then their memories are compared.
 *
 * This takes QEMU 10: a 7.2 without KVM loses dirty pages of the busy guest also when it migrates
 * straight to another 7.2. The guest that stands still is carried by both.
 */

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const MEMORY_BYTES = 128 * 2 ** 20;
/** Memory without the VGA hole, behind which reads go to a device. */
const MEMORY_RANGES = [
  { startBytes: 0, lengthBytes: 0xa0000 },
  { startBytes: 0x100000, lengthBytes: MEMORY_BYTES - 0x100000 },
];
const PASSES_MIN = 4;
const HAS_QEMU = spawnSync(LAB_QEMU_BINARY, ["--version"]).status === 0;
const GUEST_FILES = new URL("../../../../.cache/guest/", import.meta.url);
const HAS_LINUX =
  existsSync(new URL("vmlinuz", GUEST_FILES)) && existsSync(new URL("initrd.img", GUEST_FILES));

let directory: string;
let cleanups: (() => Promise<void> | void)[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-stream-"));
});

afterEach(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
  cleanups = [];
  await rm(directory, { recursive: true, force: true });
});

function randomOf(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function machine(type: string): string[] {
  const memory = `size=${MEMORY_BYTES}B`;
  return ["-machine", `${type},accel=tcg`, "-cpu", "qemu64", "-m", memory];
}

async function start(name: string, qemuArguments: readonly string[]): Promise<LabQemu> {
  const qemu = await LabQemu.start({ directory, name }, qemuArguments);
  cleanups.push(() => qemu.kill());
  return qemu;
}

/** A listener for the source, which records all that comes and answers its pings. */
class Recording {
  readonly path = join(directory, "recorded");
  readonly uri = `unix:${join(directory, "source.sock")}`;
  readonly live: MigrationCopy;
  /** Settled when the stream has come to its end; the source then waits for SHUT. */
  readonly whole = new Deferred();
  #socket: Socket | null = null;

  constructor() {
    this.live = new MigrationCopy((value) => this.#socket?.write(encodePong(value)));
    const decoder = new StreamDecoder(this.live);
    const file = openSync(this.path, "w");
    const server = createServer((socket) => {
      this.#socket = socket;
      socket.on("error", (error) => {
        this.whole.reject(error);
      });
      socket.on("data", (chunk) => {
        try {
          writeSync(file, chunk);
          decoder.push(chunk);
          if (this.live.isWhole()) this.whole.resolve();
        } catch (error) {
          this.whole.reject(error);
        }
      });
    });
    server.listen(join(directory, "source.sock"));
    cleanups.push(() => {
      this.#socket?.destroy();
      server.close();
      closeSync(file);
    });
  }

  shut(): void {
    this.#socket?.write(encodeShut(0));
  }

  /** The recorded file, decoded again in chunks of another size. */
  async decodeAgain(chunkBytes: number): Promise<MigrationCopy> {
    const recorded = await readFile(this.path);
    const copy = new MigrationCopy();
    const decoder = new StreamDecoder(copy);
    for (let at = 0; at < recorded.length; at += chunkBytes) {
      decoder.push(recorded.subarray(at, at + chunkBytes));
    }
    decoder.end();
    return copy;
  }
}

/** Lets the stream be loaded, and returns what the destination answered up to its SHUT. */
async function load(dest: LabQemu, stream: Buffer): Promise<ReturnPathMessage[]> {
  const path = join(directory, "dest.sock");
  await dest.execute("migrate-incoming", { uri: `unix:${path}` });
  const socket = await connectWhenThere(path);
  cleanups.push(() => {
    socket.destroy();
  });
  const messages: ReturnPathMessage[] = [];
  const shut = new Deferred();
  const decoder = new ReturnPathDecoder(
    (message) => {
      messages.push(message);
      if (message.type === "shut") shut.resolve();
    },
    { bitmapBytesMax: 0 },
  );
  socket.on("error", (error) => {
    shut.reject(error);
  });
  socket.on("close", () => {
    shut.reject(new Error("the destination closed before its SHUT"));
  });
  socket.on("data", (chunk) => {
    try {
      decoder.push(chunk);
    } catch (error) {
      shut.reject(error);
    }
  });
  socket.write(stream);
  await shut.promise;
  return messages;
}

/** Both have to be stopped. */
async function expectSameMemory(source: LabQemu, dest: LabQemu): Promise<void> {
  for (const range of MEMORY_RANGES) {
    const dumps: Buffer[] = [];
    for (const [name, qemu] of Object.entries({ source, dest })) {
      const path = join(directory, `${name}.memory`);
      await qemu.saveMemory(path, range);
      dumps.push(await readFile(path));
    }
    const [ofSource, ofDest] = dumps;
    expect(ofSource?.length).toBe(range.lengthBytes);
    expect(
      Buffer.compare(ofSource!, ofDest!),
      `memory from ${range.startBytes}, seed ${seed}`,
    ).toBe(0);
  }
}

async function counterOf(qemu: LabQemu): Promise<number> {
  const path = join(directory, "counter");
  await qemu.saveMemory(path, { startBytes: BUSY_GUEST_COUNTER_AT, lengthBytes: 4 });
  return (await readFile(path)).readUInt32LE();
}

const MAY_SKIP = !HAS_QEMU && process.env["CI"] === undefined;
const TITLE = MAY_SKIP ? `between two QEMUs (there is no ${LAB_QEMU_BINARY})` : "between two QEMUs";

describe.skipIf(MAY_SKIP)(TITLE, () => {
  it("carries a guest that stands still", async () => {
    const serial = (name: string): string => join(directory, `${name}.serial`);
    const guest = (name: string): string[] => [
      ...machine("pc-q35-7.2"),
      ...(HAS_LINUX ? linux() : []),
      "-serial",
      `file:${serial(name)}`,
    ];
    const source = await start("source", guest("source"));
    if (HAS_LINUX) await lineIn(serial("source"), /VF seq=\d+ /);
    await source.execute("stop");
    const recording = new Recording();
    await source.setCapabilities("return-path");
    await source.execute("migrate", { uri: recording.uri });
    await recording.whole.promise;

    expect(recording.live.repeatCount).toBe(0);
    expect(recording.live.blockNames).toContain("pc.ram");
    expect(recording.live.commands).toEqual([COMMAND.OPEN_RETURN_PATH, COMMAND.PING]);
    recording.shut();
    await source.waitForMigration("completed");
    for (const chunkBytes of [1000, 65_536, 2 ** 20]) {
      const again = await recording.decodeAgain(chunkBytes);
      expect(again.orderDigest()).toBe(recording.live.orderDigest());
    }

    const dest = await start("dest", [...guest("dest"), "-S", "-incoming", "defer"]);
    const answers = await load(dest, recording.live.encodeShuffled(randomOf(seed)));
    expect(answers).toEqual([
      { type: "pong", value: 1 },
      { type: "shut", value: 0 },
    ]);
    await dest.waitForMigration("completed");
    await expectSameMemory(source, dest);
    if (!HAS_LINUX) return;
    await dest.execute("cont");
    const report = await lineIn(serial("dest"), /VF seq=\d+ .*/);
    expect(report).toContain(" errors=0");
  });

  it("carries a guest that dirties its memory all the time", async () => {
    const guest = await busyGuest();
    const source = await start("source", guest);
    await atWork(source);
    const recording = new Recording();
    await source.setCapabilities("return-path");
    // Several passes: it cannot converge before it is allowed to. The first pass has to take longer
    // than the 100 ms after which QEMU first knows its bandwidth: before, it takes any end of a
    // pass for the end of the migration.
    await source.execute("migrate-set-parameters", {
      "max-bandwidth": 16 * 2 ** 20,
      "downtime-limit": 1,
    });
    await source.execute("migrate", { uri: recording.uri });
    await Promise.race([
      recording.whole.promise,
      eventually("pages that come again and again", () =>
        recording.live.repeatCount > PASSES_MIN * BUSY_GUEST_PAGE_COUNT ? true : null,
      ),
    ]);
    expect(recording.live.ramEnded, "converged too early").toBe(false);
    await source.execute("migrate-set-parameters", { "downtime-limit": 2000 });
    await recording.whole.promise;
    recording.shut();
    await source.waitForMigration("completed");
    expect(await source.status()).toBe("postmigrate");

    const dest = await start("dest", [...guest, "-S", "-incoming", "defer"]);
    const copy = await recording.decodeAgain(65_537);
    expect(copy.orderDigest()).toBe(recording.live.orderDigest());
    expect(copy.pageCount).toBe(copy.latestCount + copy.repeatCount);
    const answers = await load(dest, copy.encodeShuffled(randomOf(seed)));
    expect(answers.at(-1)).toEqual({ type: "shut", value: 0 });
    await dest.waitForMigration("completed");
    await expectSameMemory(source, dest);

    const counter = await counterOf(dest);
    await dest.execute("cont");
    await eventually("the guest at work again", async () =>
      (await counterOf(dest)) === counter ? null : true,
    );
  });

  it("decodes a post-copy with its discards, its package and the pages behind it", async () => {
    const source = await start("source", await busyGuest());
    await atWork(source);
    const recording = new Recording();
    await source.setCapabilities("return-path", "postcopy-ram");
    await source.execute("migrate-set-parameters", {
      "max-bandwidth": 16 * 2 ** 20,
      "downtime-limit": 1,
    });
    await source.execute("migrate", { uri: recording.uri });
    await eventually("pages that come again", () =>
      recording.live.repeatCount > BUSY_GUEST_PAGE_COUNT ? true : null,
    );
    await source.execute("migrate-start-postcopy");
    await recording.whole.promise;
    recording.shut();
    await source.waitForMigration("completed");

    const copy = await recording.decodeAgain(10_007);
    expect(copy.orderDigest()).toBe(recording.live.orderDigest());
    expect(copy.commands).toContain(COMMAND.POSTCOPY_ADVISE);
    expect(copy.commands).toContain(COMMAND.PACKAGED);
    // What is sent behind the package is what was discarded before it, to the page.
    const discarded = copy.discards.flatMap(({ ranges }) => ranges);
    const discardedBytes = discarded.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    expect(discardedBytes).toBeGreaterThanOrEqual(BUSY_GUEST_PAGE_COUNT * PAGE_BYTES);
    expect(copy.postCopyCount * PAGE_BYTES).toBe(discardedBytes);
    expect(copy.discards.map(({ block }) => block)).toContain("pc.ram");
  });
});

async function busyGuest(): Promise<string[]> {
  const kernel = join(directory, "busy-guest");
  await writeFile(kernel, busyGuestKernel());
  return [...machine("q35"), "-kernel", kernel];
}

async function atWork(qemu: LabQemu): Promise<void> {
  await eventually("a guest at work", async () =>
    (await counterOf(qemu)) > BUSY_GUEST_PAGE_COUNT ? true : null,
  );
}

function linux(): string[] {
  const file = (name: string): string => fileURLToPath(new URL(name, GUEST_FILES));
  const cmdline = "console=ttyS0 quiet vmferry.mem=16M vmferry.rate=200";
  return ["-kernel", file("vmlinuz"), "-initrd", file("initrd.img"), "-append", cmdline];
}

async function lineIn(path: string, pattern: RegExp): Promise<string> {
  return await eventually(`${String(pattern)} on the console`, async () => {
    const text = existsSync(path) ? await readFile(path, "latin1") : "";
    return pattern.exec(text)?.[0] ?? null;
  });
}
