import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { NbdError } from "./nbd-error.ts";
import { NbdTestBench } from "./nbd-test-bench.ts";
import {
  rawHandshake,
  rawInfoData,
  rawMetaData,
  rawOption,
  rawRequest,
  u32,
  type RawNbdClient,
} from "./raw-nbd-client.ts";

/* Clients that mean harm, or that end in the middle of everything. */

const READ = 0;
const WRITE = 1;
const FLUSH = 3;
const TRIM = 4;
const WRITE_ZEROES = 6;
const BLOCK_STATUS = 7;
const MIB = 1024 * 1024;

let bench: NbdTestBench;

beforeEach(async () => {
  bench = await NbdTestBench.open({}, 4 * MIB);
});

afterEach(async () => {
  // Whatever has happened, the next client is served.
  bench.device.release();
  const client = await bench.attach();
  expect(await client.ask({ command: FLUSH })).toBe(0);
  await bench.close();
});

function optionHeader(option: number, length: number): Buffer {
  return Buffer.concat([Buffer.from("IHAVEOPT"), u32(option), u32(length)]);
}

/** Enough turns of the event loop for everything that can still move on a local socket. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
}

async function expectDropped(client: RawNbdClient): Promise<void> {
  await client.closed;
  await expect.poll(() => bench.faults).toHaveLength(1);
  expect(bench.faults[0]).toBeInstanceOf(NbdError);
}

describe("before the handshake is done", () => {
  test("a client that leaves at once harms nobody (CVE-2017-9524)", async () => {
    for (let i = 0; i < 20; i++) (await bench.connect()).end();
    await bench.roundTrip();
    expect(bench.faults).toEqual([]);
  });

  test.each([
    ["an HTTP request", Buffer.from("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")],
    ["the old style's flags", u32(0)],
    ["a request instead of an option", Buffer.concat([u32(3), rawRequest({ command: READ })])],
  ])("%s drops the client", async (_, bytes) => {
    const client = await bench.connect();
    client.send(bytes);
    await expectDropped(client);
  });

  test.each([0xffff_ffff, 0x8000_0000, 4353])(
    "an option of %i bytes drops the client before it has sent one of them (CVE-2017-15119)",
    async (length) => {
      const client = await bench.greet();
      client.send(optionHeader(99, length));
      await expectDropped(client);
    },
  );

  test("a name of 0xffffffff bytes is refused (CVE-2022-26495)", async () => {
    const client = await bench.greet();
    const data = Buffer.concat([u32(0xffff_ffff), Buffer.alloc(100)]);
    for (const option of [6, 7, 9, 10]) {
      expect(await client.option(option, data)).toMatchObject([{ option, type: 0x8000_0003 }]);
    }
  });

  test.each([256, 257, 1024, 4096])(
    "a name of %i bytes is refused by a constant text (CVE-2017-15118, CVE-2020-10761)",
    async (length) => {
      const client = await bench.greet();
      for (const option of [6, 7]) {
        const [answer] = await client.option(option, rawInfoData("x".repeat(length)));
        expect(answer).toMatchObject({ type: 0x8000_0006, data: Buffer.from("no such export") });
      }
      client.send(rawOption(1, Buffer.alloc(length, "x")));
      await expectDropped(client);
    },
  );

  test("data where an option takes none are refused, and the next option is heard (CVE-2017-7539)", async () => {
    const client = await bench.greet();
    for (const option of [3, 8]) {
      const answers = await client.option(option, Buffer.from("unexpected"));
      expect(answers).toMatchObject([{ option, type: 0x8000_0003 }]);
    }
    expect(await client.option(5, Buffer.from("unexpected"))).toMatchObject([
      { type: 0x8000_0001 },
    ]);
    expect((await client.option(7, rawInfoData(""))).at(-1)).toMatchObject({ type: 1 });
    expect(await client.ask({ command: FLUSH })).toBe(0);
  });

  test("a wrong name ends its own connection and nothing else (CVE-2013-7441)", async () => {
    const attached = await bench.attach();
    const client = await bench.greet();
    client.send(rawOption(1, Buffer.from("disk1")));
    await expectDropped(client);
    expect(await attached.ask({ command: FLUSH })).toBe(0);
  });

  test("options without end are read only as fast as their replies are", async () => {
    const client = await bench.greet();
    client.socket.pause();
    const flood = Buffer.concat(Array.from({ length: 10_000 }, () => rawOption(3)));
    for (let i = 0; i < 20; i++) client.send(flood);
    await settle();
    expect(client.socket.writableLength).toBeGreaterThan(2 * MIB);
    client.end();
  });
});

describe("a request", () => {
  test("without its magic drops the client", async () => {
    const client = await bench.attach();
    client.send(Buffer.alloc(28, 0x25));
    await expectDropped(client);
  });

  test("without its magic drops the client at once, whatever it has under way", async () => {
    const client = await bench.attach();
    bench.device.hold();
    client.send(rawRequest({ command: WRITE, payload: Buffer.alloc(16, 1) }), Buffer.alloc(28));
    await client.closed;
    expect(bench.server.attached).toBe(true);
    expect(bench.faults).toEqual([]);
    bench.device.release();
    await expectDropped(client);
    expect(bench.events).toEqual(["attached", "detached"]);
  });

  test("to write more than 32 MiB drops the client", async () => {
    const client = await bench.attach();
    client.request({ command: WRITE, length: 32 * MIB + 1 });
    await expectDropped(client);
  });

  test("to write what may not be written is answered after its payload", async () => {
    const client = await bench.attach({ structured: true });
    const payload = Buffer.alloc(3 * MIB, rawRequest({ command: TRIM, length: 4096 }));
    const bad = [
      { command: WRITE, payload, offset: 2 * MIB },
      { command: WRITE, payload, offset: 2n ** 64n - 1n },
      { command: WRITE, payload, flags: 0x8000 },
    ];
    for (const fields of bad) client.request(fields);
    client.request({ command: FLUSH });
    const errnos = [];
    for (let i = 0; i < 3; i++) {
      const reply = await client.reply();
      errnos.push(reply.kind === "chunk" && reply.payload.readUInt32BE(0));
    }
    expect(errnos).toEqual([28, 28, 22]);
    expect(await client.reply()).toMatchObject({ kind: "simple", errno: 0 });
    expect(bench.device.calls.map(({ operation }) => operation)).toEqual(["flush"]);
  });

  test("of an unknown command is answered, and what follows is the next request", async () => {
    const client = await bench.attach();
    for (const command of [8, 9, 0x7fff, 0xffff]) {
      expect(await client.ask({ command, length: 0xffff_ffff })).toBe(22);
    }
    expect(await client.ask({ command: FLUSH })).toBe(0);
  });

  test("past the end reaches the device by no arithmetic (nbdkit CVE-2025-47712)", async () => {
    const client = await bench.attach({ blockStatus: true });
    for (const command of [READ, TRIM, WRITE_ZEROES, BLOCK_STATUS]) {
      for (const [offset, length] of [
        [2n ** 64n - 1n, 1],
        [2n ** 64n - 4096n, 4096],
        [2n ** 64n - 4096n, 8192],
        [2n ** 63n, 0x8000_0000],
        [4n * 1024n * 1024n - 1n, 2],
        [1n, 0xffff_ffff],
        [0n, 0],
      ] as const) {
        expect(await client.ask({ command, offset, length })).toBeGreaterThan(0);
      }
    }
    expect(bench.device.calls).toEqual([]);
  });

  test("that overlaps others under way, in a storm of flushes, is carried out", async () => {
    const client = await bench.attach();
    const asked = 120;
    for (let i = 0; i < asked; i++) {
      const flags = i % 3 === 0 ? 1 : 0;
      const payload = Buffer.alloc(4096, i);
      if (i % 4 === 3) client.request({ command: FLUSH, cookie: BigInt(i) });
      else if (i % 4 === 2) client.request({ command: TRIM, flags, length: 4 * MIB });
      else client.request({ command: WRITE, flags, payload, offset: i * 100 });
    }
    for (let i = 0; i < asked; i++) expect(await client.reply()).toMatchObject({ errno: 0 });
  });
});

describe("what a client has under way", () => {
  test("is at most 128 requests, and the rest waits in its socket", async () => {
    const client = await bench.attach();
    bench.device.hold();
    const flood = Buffer.concat(
      Array.from({ length: 10_000 }, () => rawRequest({ command: READ, length: 1 })),
    );
    for (let i = 0; i < 10; i++) client.send(flood);
    await settle();
    expect(bench.device.underWay).toBe(128);
    expect(client.socket.writableLength).toBeGreaterThan(MIB);
    bench.device.release();
    for (let i = 0; i < 100_000; i += 1000) await client.receive(17 * 1000);
    expect(bench.device.calls).toHaveLength(100_000);
  });

  test("is at most 64 MiB to write", async () => {
    await bench.close();
    bench = await NbdTestBench.open({}, 32 * MIB);
    const client = await bench.attach();
    bench.device.hold();
    const payload = Buffer.alloc(20 * MIB, 1);
    for (let i = 0; i < 5; i++) client.request({ command: WRITE, payload });
    await expect.poll(() => bench.device.underWay).toBe(3);
    await settle();
    expect(bench.device.underWay).toBe(3);
    expect(client.socket.writableLength).toBeGreaterThan(39 * MIB);
    bench.device.release();
    for (let i = 0; i < 5; i++) expect(await client.reply()).toMatchObject({ errno: 0 });
  });

  test("is at most 64 MiB read and not taken", async () => {
    const client = await bench.attach();
    client.socket.pause();
    const bytesBefore = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 2000; i++) client.request({ command: READ, length: MIB });
    await settle();
    // The kernel holds less than one reply.
    expect(bench.device.calls.length).toBeGreaterThanOrEqual(64);
    expect(bench.device.calls.length).toBeLessThanOrEqual(65);
    const grownBytes = process.memoryUsage().arrayBuffers - bytesBefore;
    expect(grownBytes).toBeLessThan(80 * MIB);
    client.socket.resume();
    for (let i = 0; i < 100; i++) await client.receive(16 + MIB);
    client.end();
  });

  test("is at most 128 refusals not taken", async () => {
    const client = await bench.attach({ structured: true });
    client.socket.pause();
    const flood = Buffer.concat(Array.from({ length: 10_000 }, () => rawRequest({ command: 99 })));
    for (let i = 0; i < 20; i++) client.send(flood);
    await settle();
    expect(client.socket.writableLength).toBeGreaterThan(3 * MIB);
    client.end();
  });

  test("is at most 16 block states, which the device may have much to say to", async () => {
    const client = await bench.attach({ blockStatus: true });
    bench.device.hold();
    for (let i = 0; i < 40; i++) client.request({ command: BLOCK_STATUS, length: 4 * MIB });
    await settle();
    expect(bench.device.underWay).toBe(16);
  });

  test("is given back when the client dies with replies not taken", async () => {
    for (let round = 0; round < 5; round++) {
      const client = await bench.attach();
      client.socket.pause();
      for (let i = 0; i < 200; i++) client.request({ command: READ, length: MIB });
      await expect.poll(() => bench.device.calls.length, { interval: 2 }).toBeGreaterThan(1);
      client.end();
      await expect.poll(() => bench.server.attached).toBe(false);
      bench.device.calls.length = 0;
    }
  });

  test("does not keep out a newer client while replies are not taken", async () => {
    const stuck = await bench.attach();
    stuck.socket.pause();
    for (let i = 0; i < 200; i++) stuck.request({ command: READ, length: MIB });
    await settle();
    const newer = await bench.attach();
    expect(await newer.ask({ command: FLUSH })).toBe(0);
  });
});

describe("a whole session", () => {
  const FIRST = rawRequest({ command: WRITE, offset: 0, payload: Buffer.alloc(100, 1) });
  const SECOND = rawRequest({ command: WRITE, offset: 512, payload: Buffer.alloc(100, 2) });
  const SESSION = Buffer.concat([
    rawHandshake({ name: "disk0", blockStatus: true }),
    FIRST,
    rawRequest({ command: BLOCK_STATUS, length: 8192 }),
    SECOND,
    rawRequest({ command: READ, length: 1024 }),
  ]);

  /** Everything the server says to the session, to its end. */
  async function answersTo(...parts: readonly Buffer[]): Promise<Buffer> {
    bench.device.calls.length = 0;
    const client = await bench.connect();
    for (const part of parts) {
      client.send(part);
      await new Promise((resolve) => setImmediate(resolve));
    }
    client.socket.end();
    const answers: Buffer[] = [];
    for (;;) {
      const byte = await client.receive(1).catch(() => null);
      if (byte === null) return Buffer.concat(answers);
      answers.push(byte);
    }
  }

  test("is answered alike wherever it is split", async () => {
    const whole = await answersTo(SESSION);
    expect(bench.device.calls).toHaveLength(4);
    for (let at = 1; at < SESSION.length; at++) {
      const answers = await answersTo(SESSION.subarray(0, at), SESSION.subarray(at));
      expect(answers.equals(whole), `split at ${at}`).toBe(true);
    }
    const single = [...SESSION].map((byte) => Buffer.of(byte));
    expect((await answersTo(...single)).equals(whole)).toBe(true);
  });

  test("cut anywhere is carried out as far as its requests are whole", async () => {
    const handshakeBytes = rawHandshake({ name: "disk0", blockStatus: true }).length;
    const lastOfFirst = handshakeBytes + FIRST.length;
    const lastOfSecond = lastOfFirst + 28 + SECOND.length;
    for (let length = 0; length < SESSION.length; length++) {
      await answersTo(SESSION.subarray(0, length));
      const writes = bench.device.calls.filter(({ operation }) => operation === "write");
      const expected = length >= lastOfSecond ? 2 : length >= lastOfFirst ? 1 : 0;
      expect(writes, `${length} bytes`).toHaveLength(expected);
    }
    await expect.poll(() => bench.server.attached).toBe(false);
    expect(bench.faults).toEqual([]);
  });
});

test("a context that was selected for an unknown export is not selected", async () => {
  const client = await bench.greet();
  await client.option(8);
  await client.option(10, rawMetaData("disk0", "base:allocation"));
  await client.option(10, rawMetaData("disk1", "base:allocation"));
  await client.option(7, rawInfoData("disk0"));
  expect(await client.ask({ command: BLOCK_STATUS, length: 4096 })).toBe(22);
});
