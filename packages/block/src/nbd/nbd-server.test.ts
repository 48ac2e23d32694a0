import { rename, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { once } from "node:events";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { BlockError } from "../block-error.ts";
import { listenOn } from "../held-sockets/socket-calls.ts";
import { NbdError } from "./nbd-error.ts";
import { NbdTestBench } from "./nbd-test-bench.ts";
import { rawInfoData, rawRequest, u32 } from "./raw-nbd-client.ts";

const READ = 0;
const WRITE = 1;
const DISC = 2;
const FLUSH = 3;
const TRIM = 4;
const CACHE = 5;
const WRITE_ZEROES = 6;
const BLOCK_STATUS = 7;
const GO = 7;

const ONES = Buffer.alloc(512, 1);

let bench: NbdTestBench;

beforeEach(async () => {
  bench = await NbdTestBench.open();
});

afterEach(() => bench.close());

describe("the socket", () => {
  test("is this user's alone, and gone after the close", async () => {
    expect((await stat(bench.socketPath)).mode & 0o777).toBe(0o600);
    await bench.server.close();
    await expect(stat(bench.socketPath)).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("takes the place of one that a dead process left", async () => {
    await bench.server.close();
    const dead = createServer().listen(join(bench.directory, "old"));
    await once(dead, "listening");
    // Under its new name the file outlives the server, as it does when a process is killed.
    await rename(join(bench.directory, "old"), bench.socketPath);
    await once(dead.close(), "close");
    await bench.serve();
    const client = await bench.attach();
    expect(await client.ask({ command: FLUSH })).toBe(0);
  });

  test("that listens already is taken as it is, with who waits there, and stays at the close", async () => {
    await bench.server.close();
    const listener = listenOn(bench.socketPath, "stream");
    const { ino } = await stat(bench.socketPath);
    const early = await bench.connect();
    await bench.serve({ listener });
    expect((await early.receive(8)).toString()).toBe("NBDMAGIC");
    await (await bench.attach()).ask({ command: FLUSH });
    await bench.server.close();
    expect((await stat(bench.socketPath)).ino).toBe(ino);
  });

  test("does not take the place of anything else", async () => {
    await bench.server.close();
    await writeFile(bench.socketPath, "precious");
    const opening = bench.serve();
    await expect(opening).rejects.toBeInstanceOf(NbdError);
    await expect(opening).rejects.toMatchObject({
      detail: { code: "nbd-listen-failed", path: bench.socketPath, systemCode: "EADDRINUSE" },
    });
    expect((await stat(bench.socketPath)).size).toBe(8);
  });

  test("in a directory that is not there is refused", async () => {
    const socketPath = join(bench.directory, "no", "nbd.sock");
    await expect(bench.serve({ socketPath })).rejects.toMatchObject({ code: "nbd-listen-failed" });
  });
});

describe("a client", () => {
  test("is attached from the end of its handshake until its connection is over", async () => {
    const client = await bench.greet();
    await client.option(3);
    expect(bench.server.attached).toBe(false);
    await client.option(GO, rawInfoData("disk0"));
    expect(bench.server.attached).toBe(true);
    client.request({ command: DISC });
    await client.closed;
    expect(bench.server.attached).toBe(false);
    expect(bench.events).toEqual(["attached", "detached"]);
    expect(bench.faults).toEqual([]);
  });

  test("causes no work of the device before its handshake is done (nbdkit CVE-2019-14850)", async () => {
    const client = await bench.greet();
    await client.option(3);
    await client.option(6, rawInfoData("disk0", 1, 3));
    await client.option(GO, rawInfoData("disk1"));
    expect(bench.device.calls).toEqual([]);
    await client.option(GO, rawInfoData("disk0"));
    expect(bench.device.calls).toEqual([]);
  });

  test("may ask in any order and as often as it likes (nbdkit CVE-2019-14851)", async () => {
    const client = await bench.greet();
    for (const option of [6, 8, 6, 3, 8, 6]) {
      const answers = await client.option(option, option === 6 ? rawInfoData("") : undefined);
      expect(answers.at(-1)).toMatchObject({ option, type: 1 });
    }
    expect((await client.option(GO, rawInfoData(""))).at(-1)).toMatchObject({ type: 1 });
    expect(await client.ask({ command: FLUSH })).toBe(0);
  });

  test("may enter by EXPORT_NAME, with and without padding", async () => {
    for (const [flags, bytes] of [
      [1, 134],
      [3, 10],
    ] as const) {
      const client = await bench.connect();
      await client.receive(18);
      client.send(u32(flags), Buffer.from("IHAVEOPT"), u32(1), u32(5), Buffer.from("disk0"));
      const answer = await client.receive(bytes);
      expect(answer.readBigUInt64BE(0)).toBe(BigInt(bench.device.sizeBytes));
      expect(await client.ask({ command: FLUSH })).toBe(0);
    }
  });

  test("reads what it wrote, with simple and with structured replies", async () => {
    const payload = Buffer.alloc(4096, 0xab);
    const simple = await bench.attach();
    expect(await simple.ask({ command: WRITE, offset: 512, payload })).toBe(0);
    expect(await simple.ask({ command: READ, offset: 512, length: 4096, cookie: 9n })).toBe(0);
    expect(await simple.receive(4096)).toEqual(payload);
    const structured = await bench.attach({ structured: true });
    structured.request({ command: READ, offset: 512, length: 4096, cookie: 2n ** 64n - 1n });
    const reply = await structured.reply();
    expect(reply).toMatchObject({ kind: "chunk", type: 1, flags: 1, cookie: 2n ** 64n - 1n });
    expect(reply.kind === "chunk" && reply.payload.subarray(8)).toEqual(payload);
  });

  test("may write and read 32 MiB at once", async () => {
    await bench.close();
    bench = await NbdTestBench.open({}, 32 * 1024 * 1024);
    const client = await bench.attach({ structured: true });
    const payload = Buffer.alloc(32 * 1024 * 1024, 0x5a);
    expect(await client.ask({ command: WRITE, payload })).toBe(0);
    expect(bench.device.content.equals(payload)).toBe(true);
    client.request({ command: READ, length: payload.length });
    const reply = await client.reply();
    expect(reply.kind === "chunk" && reply.payload.subarray(8).equals(payload)).toBe(true);
  });

  test("gets replies in the order of completion", async () => {
    const client = await bench.attach();
    bench.device.hold();
    client.request({ command: WRITE, cookie: 1n, payload: ONES });
    client.request({ command: CACHE, cookie: 2n, length: 512 });
    expect(await client.reply()).toEqual({ kind: "simple", errno: 0, cookie: 2n });
    bench.device.release();
    expect(await client.reply()).toEqual({ kind: "simple", errno: 0, cookie: 1n });
  });

  test("of a read-only export may not write", async () => {
    await bench.serve({ readOnly: true });
    const client = await bench.attach({ structured: true });
    expect(await client.ask({ command: WRITE, payload: Buffer.alloc(100_000, 1) })).toBe(1);
    expect(await client.ask({ command: TRIM, length: 512 })).toBe(1);
    expect(await client.ask({ command: WRITE_ZEROES, length: 512 })).toBe(1);
    expect(await client.ask({ command: READ, length: 512 })).toBe(0);
    expect(bench.device.calls.map(({ operation }) => operation)).toEqual(["read"]);
  });

  test("that asks for the status of blocks gets it", async () => {
    const client = await bench.attach({ blockStatus: true });
    client.request({ command: BLOCK_STATUS, length: 8192 });
    const reply = await client.reply();
    expect(reply).toMatchObject({ kind: "chunk", flags: 1, type: 5 });
    expect(reply.kind === "chunk" && reply.payload.toString("hex")).toBe(
      "000000010000200000000003",
    );
  });

  test.each([true, false])(
    "is told of a failure of the device, and goes on (structured: %s)",
    async (structured) => {
      const client = await bench.attach({ structured });
      const failure = new BlockError("full", {
        code: "block-io",
        errno: "ENOSPC",
        operation: "write",
        offset: 0,
      });
      bench.device.failure = failure;
      expect(await client.ask({ command: WRITE, payload: ONES })).toBe(28);
      expect(await client.ask({ command: READ, length: 512 })).toBe(28);
      expect(bench.faults).toEqual([]);
      const mistake = new RangeError("mistake");
      bench.device.failure = mistake;
      expect(await client.ask({ command: WRITE, payload: ONES })).toBe(5);
      expect(bench.faults).toEqual([mistake]);
      bench.device.failure = null;
      expect(await client.ask({ command: WRITE, payload: ONES })).toBe(0);
    },
  );

  test("whose device throws instead of rejecting is told EIO", async () => {
    const client = await bench.attach();
    bench.device.write = () => {
      throw new RangeError("mistake");
    };
    expect(await client.ask({ command: WRITE, payload: ONES })).toBe(5);
    expect(bench.faults).toHaveLength(1);
  });

  test("that says good-bye gets the replies that it is owed", async () => {
    const client = await bench.attach();
    bench.device.hold();
    client.send(
      rawRequest({ command: WRITE, cookie: 1n, payload: ONES }),
      rawRequest({ command: DISC }),
    );
    await expect.poll(() => bench.device.underWay).toBe(1);
    expect(bench.server.attached).toBe(true);
    bench.device.release();
    expect(await client.reply()).toMatchObject({ errno: 0, cookie: 1n });
    await client.closed;
    expect(bench.device.content[0]).toBe(1);
  });

  test("is not heard after its good-bye", async () => {
    const client = await bench.attach();
    client.send(rawRequest({ command: DISC }), rawRequest({ command: WRITE, payload: ONES }));
    await client.closed;
    expect(bench.device.calls).toEqual([]);
  });

  test("that closes its sending side gets the replies that it is owed", async () => {
    const client = await bench.attach();
    bench.device.hold();
    client.socket.end(
      Buffer.concat([
        rawRequest({ command: WRITE, cookie: 1n, payload: ONES }),
        rawRequest({ command: FLUSH, cookie: 2n }),
      ]),
    );
    await expect.poll(() => bench.device.underWay).toBe(2);
    await bench.roundTrip();
    bench.device.release();
    expect(await client.reply()).toMatchObject({ errno: 0, cookie: 1n });
    expect(await client.reply()).toMatchObject({ errno: 0, cookie: 2n });
    await client.closed;
  });

  test("that dies does not undo what it asked for", async () => {
    const client = await bench.attach();
    bench.device.hold();
    client.request({ command: WRITE, payload: ONES });
    await expect.poll(() => bench.device.underWay).toBe(1);
    client.end();
    await client.closed;
    await bench.roundTrip();
    expect(bench.events).toEqual(["attached"]);
    bench.device.release();
    await expect.poll(() => bench.events).toEqual(["attached", "detached"]);
    expect(bench.device.content[0]).toBe(1);
  });
});

describe("the server's close", () => {
  test("ends every connection, and waits until the device has settled", async () => {
    const client = await bench.attach();
    const shaking = await bench.greet();
    bench.device.hold();
    client.request({ command: WRITE, payload: ONES });
    await expect.poll(() => bench.device.underWay).toBe(1);
    let closed = false;
    const closing = bench.server.close().then(() => {
      closed = true;
    });
    await Promise.all([client.closed, shaking.closed]);
    await new Promise((resolve) => setImmediate(resolve));
    expect(closed).toBe(false);
    bench.device.release();
    await closing;
    expect(bench.device.content[0]).toBe(1);
    expect(bench.events).toEqual(["attached", "detached"]);
    expect(bench.server.attached).toBe(false);
  });

  test("can be asked for twice", async () => {
    await bench.attach();
    await Promise.all([bench.server.close(), bench.server.close()]);
    await bench.server.close();
  });

  test("lets nobody in who was waiting", async () => {
    const older = await bench.attach();
    bench.device.hold();
    older.request({ command: WRITE, payload: ONES });
    await expect.poll(() => bench.device.underWay).toBe(1);
    const newer = await bench.knock();
    await older.closed;
    const closing = bench.server.close();
    await newer.closed;
    bench.device.release();
    await closing;
    expect(bench.events).toEqual(["attached", "detached"]);
  });
});
