import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { SocketReader } from "./socket-reader.ts";

let directory: string;
let server: Server;
let sender: Socket;
let socket: Socket;
let reader: SocketReader;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "reader-"));
  const path = join(directory, "socket");
  server = createServer({ allowHalfOpen: true }).listen(path);
  await once(server, "listening");
  const accepted = once(server, "connection") as Promise<[Socket]>;
  sender = createConnection({ path, allowHalfOpen: true });
  [socket] = await accepted;
  reader = new SocketReader(socket);
});

afterEach(async () => {
  sender.destroy();
  socket.destroy();
  server.close();
  await rm(directory, { recursive: true });
});

function numbered(length: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => index & 0xff));
}

test("pieces come in order, whatever the chunks were", async () => {
  const bytes = numbered(1000);
  void (async () => {
    for (const byte of bytes) {
      sender.write(Buffer.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  expect(await reader.take(1)).toEqual(bytes.subarray(0, 1));
  expect(await reader.take(0)).toHaveLength(0);
  expect(await reader.takeToKeep(300)).toEqual(bytes.subarray(1, 301));
  expect(await reader.skip(199)).toBe(true);
  expect(await reader.take(500)).toEqual(bytes.subarray(500));
});

test("a long piece is gathered once, and what follows it stays", async () => {
  const bytes = numbered(5_000_000);
  sender.end(bytes);
  expect((await reader.takeToKeep(4_999_990))!.equals(bytes.subarray(0, 4_999_990))).toBe(true);
  expect(await reader.take(10)).toEqual(bytes.subarray(4_999_990));
});

test("a piece inside one chunk is a view, and one that is kept holds little else", async () => {
  sender.write(numbered(40_000));
  const first = await reader.take(4);
  expect(first!.buffer.byteLength).toBeGreaterThan(4);
  expect((await reader.takeToKeep(30_000))!.buffer).toBe(first!.buffer);
  const kept = await reader.takeToKeep(512);
  expect(kept!.buffer.byteLength).toBe(512);
  expect(kept).toEqual(numbered(40_000).subarray(30_004, 30_516));
});

test("the bytes before an end are still read, and then there are none", async () => {
  sender.end(numbered(10));
  expect(await reader.take(8)).toEqual(numbered(8));
  expect(await reader.take(3)).toBeNull();
  expect(await reader.take(1)).toBeNull();
});

test("an end in the middle of a piece is told to whoever waits", async () => {
  const taking = reader.take(10);
  sender.end(numbered(9));
  expect(await taking).toBeNull();
});

test("an end in the middle of what is skipped is told", async () => {
  const skipping = reader.skip(100_000);
  sender.end(numbered(99_999));
  expect(await skipping).toBe(false);
});

test("bytes that came before the socket was closed from here are void", async () => {
  sender.write(numbered(100));
  expect(await reader.take(1)).toEqual(numbered(1));
  socket.destroy();
  await once(socket, "close");
  expect(await reader.take(1)).toBeNull();
});

test("whoever waits when the socket is closed is told", async () => {
  const taking = reader.take(1);
  socket.destroy();
  expect(await taking).toBeNull();
});

test("while nobody takes anything the sender has to wait", async () => {
  sender.write(Buffer.alloc(20_000_000));
  await expect.poll(() => socket.isPaused()).toBe(true);
  for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(socket.bytesRead).toBeLessThan(1_000_000);
  expect(await reader.skip(20_000_000)).toBe(true);
});
