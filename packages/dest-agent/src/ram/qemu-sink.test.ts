import { createConnection, createServer, type Server, type Socket } from "node:net";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { QemuSink } from "./qemu-sink.ts";

const MIB = 2 ** 20;

let directory: string;
let server: Server;
let qemu: Socket;
let socket: Socket;
let sink: QemuSink;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-sink-"));
  const path = join(directory, "in.sock");
  const accepted = new Promise<Socket>((resolve) => {
    server = createServer({ pauseOnConnect: true }, resolve);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  socket = createConnection(path);
  socket.on("error", () => undefined);
  qemu = await accepted;
  qemu.on("error", () => undefined);
  sink = new QemuSink(socket);
});

afterEach(async () => {
  socket.destroy();
  qemu.destroy();
  server.close();
  await rm(directory, { recursive: true });
});

async function turns(): Promise<void> {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** Writes MiB after MiB while nobody reads; how many writes resolved, and the one that waits. */
async function fill(): Promise<{ writes: number; taken: () => number; waiting: Promise<void> }> {
  let taken = 0;
  for (let writes = 1; ; writes++) {
    const state = { resolved: false };
    const waiting = sink.write(Buffer.alloc(MIB, writes), () => taken++);
    waiting.then(
      () => (state.resolved = true),
      () => undefined,
    );
    await turns();
    if (!state.resolved) return { writes, taken: () => taken, waiting };
    expect(writes).toBeLessThan(64);
  }
}

describe("writing into QEMU's socket", () => {
  test("hands on bytes in order and says when each may be used again", async () => {
    const received: Buffer[] = [];
    qemu.on("data", (chunk: Buffer) => received.push(chunk));
    qemu.resume();
    const done: number[] = [];
    for (let i = 0; i < 5; i++) await sink.write(Buffer.from(`write ${i} `), () => done.push(i));
    await expect.poll(() => done).toEqual([0, 1, 2, 3, 4]);
    await expect
      .poll(() => Buffer.concat(received).toString())
      .toBe("write 0 write 1 write 2 write 3 write 4 ");
  });

  test("waits while QEMU does not read, with a few MiB under way, and goes on when it does", async () => {
    const { writes, taken, waiting } = await fill();
    // What the kernel has is taken; 2 MiB and the write that went over them are not.
    expect(writes - taken()).toBeLessThanOrEqual(3);
    let receivedBytes = 0;
    qemu.on("data", (chunk: Buffer) => (receivedBytes += chunk.length));
    qemu.resume();
    await waiting;
    await expect.poll(() => receivedBytes).toBe(writes * MIB);
    expect(taken()).toBe(writes);
  });

  test("lets every writer go on that waited, and waits sooner where it was told to", async () => {
    sink.outstandingBytesMax = 64 * 1024;
    const { waiting } = await fill();
    const other = sink.write(Buffer.alloc(MIB), () => undefined);
    qemu.resume();
    await Promise.all([waiting, other]);
  });

  test("fails the write that waits when QEMU goes away, and never calls its bytes taken", async () => {
    const { writes, taken, waiting } = await fill();
    qemu.destroy();
    await expect(waiting).rejects.toThrow();
    expect(taken()).toBeLessThan(writes);
  });

  test("fails every write after one that failed", async () => {
    socket.destroy();
    let taken = false;
    await sink.write(Buffer.alloc(10), () => (taken = true)).catch(() => undefined);
    await turns();
    await expect(sink.write(Buffer.alloc(10), () => (taken = true))).rejects.toThrow();
    expect(taken).toBe(false);
  });
});
