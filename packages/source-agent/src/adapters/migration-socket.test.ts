import { randomBytes } from "node:crypto";
import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createConnection, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { MigrationSocket } from "./migration-socket.ts";

let directory: string;
let path: string;
let socket: MigrationSocket | null = null;
const clients: Socket[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-socket-"));
  path = join(directory, "out.sock");
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.destroy();
  await socket?.close();
  await rm(directory, { recursive: true });
});

/** Keeps a copy of what comes; stops reading when `limitBytes` came since the last `goOn`. */
class Reader {
  readonly chunks: Buffer[] = [];
  ended = false;
  limitBytes = Infinity;

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }

  onChunk = (chunk: Buffer): boolean => {
    this.chunks.push(Buffer.from(chunk));
    return this.bytes.length < this.limitBytes;
  };

  onEnd = (): void => {
    this.ended = true;
  };
}

async function listen(reader: Reader): Promise<MigrationSocket> {
  socket = await MigrationSocket.listen(path, reader);
  return socket;
}

async function connect(): Promise<Socket> {
  const client = createConnection(path);
  clients.push(client);
  client.on("error", () => undefined);
  await new Promise<void>((resolve, reject) => {
    client.once("connect", resolve);
    client.once("error", reject);
  });
  return client;
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

describe("the socket that QEMU migrates to", () => {
  test("hands on every byte in order, and the end", async () => {
    const reader = new Reader();
    await listen(reader);
    const client = await connect();
    const bytes = randomBytes(3 * 2 ** 20 + 17);
    client.end(bytes);
    await expect.poll(() => reader.ended).toBe(true);
    expect(reader.bytes.equals(bytes)).toBe(true);
  });

  test("reads no further while the reader wants no more", async () => {
    const reader = new Reader();
    reader.limitBytes = 1;
    const listener = await listen(reader);
    const client = await connect();
    const bytes = randomBytes(8 * 2 ** 20);
    let taken = false;
    client.end(bytes, () => (taken = true));
    await expect.poll(() => reader.chunks.length).toBe(1);
    // More turns of the event loop than a read would need; the kernel's buffer is full by now.
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(reader.chunks).toHaveLength(1);
    expect([taken, reader.ended]).toEqual([false, false]);
    reader.limitBytes = Infinity;
    listener.resume();
    await expect.poll(() => reader.ended).toBe(true);
    expect(reader.bytes.equals(bytes)).toBe(true);
  });

  test("carries the return path", async () => {
    const listener = await listen(new Reader());
    const client = await connect();
    client.write("stream");
    const received = new Promise<string>((resolve) => {
      client.once("data", (chunk) => {
        resolve(chunk.toString());
      });
    });
    await expect
      .poll(() => {
        listener.write(Buffer.from("shut"));
      })
      .toBeUndefined();
    expect(await received).toBe("shut");
  });

  test("closes the door behind the first that connects", async () => {
    const reader = new Reader();
    await listen(reader);
    const client = await connect();
    client.write("first");
    await expect.poll(() => reader.bytes.toString()).toBe("first");
    await expect(connect()).rejects.toThrow();
    expect(await exists(path)).toBe(false);
    client.write(" and only");
    await expect.poll(() => reader.bytes.toString()).toBe("first and only");
  });

  test("lets no second one in that knocked at the same time", async () => {
    const reader = new Reader();
    await listen(reader);
    const both = await Promise.allSettled([connect(), connect()]);
    const inside = both.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
    for (const client of inside) client.write("x");
    await expect.poll(() => inside.filter(({ destroyed }) => !destroyed).length).toBe(1);
    await expect.poll(() => reader.bytes.toString()).toBe("x");
  });

  test("takes the place of a socket that was left behind", async () => {
    await writeFile(path, "stale");
    const reader = new Reader();
    await listen(reader);
    const client = await connect();
    client.end("new");
    await expect.poll(() => reader.ended).toBe(true);
  });

  test("tells when it cannot listen", async () => {
    const missing = join(directory, "missing", "out.sock");
    await expect(MigrationSocket.listen(missing, new Reader())).rejects.toThrow();
  });

  test("ends QEMU's connection when it is closed, and leaves no file", async () => {
    const reader = new Reader();
    const listener = await listen(reader);
    const client = await connect();
    client.write("x");
    await expect.poll(() => reader.bytes.length).toBe(1);
    const ended = new Promise((resolve) => client.once("close", resolve));
    client.resume();
    await listener.close();
    await ended;
    expect(await exists(path)).toBe(false);
    expect(reader.ended).toBe(false);
  });

  test("can be closed before anybody came, and twice", async () => {
    const listener = await listen(new Reader());
    await listener.close();
    await listener.close();
    expect(await exists(path)).toBe(false);
    await expect(connect()).rejects.toThrow();
  });
});
