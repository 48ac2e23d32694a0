import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ManualClock, NbdTestBench } from "./nbd-test-bench.ts";
import { rawInfoData, rawRequest, type RawNbdClient } from "./raw-nbd-client.ts";

/* Who is served when more than one wants to be. */

const WRITE = 1;
const FLUSH = 3;
const TRIM = 4;
const GO = 7;

let bench: NbdTestBench;

beforeEach(async () => {
  bench = await NbdTestBench.open();
});

afterEach(() => bench.close());

/** A client with one write under way that the device holds back. */
async function attachAndStall(): Promise<RawNbdClient> {
  const client = await bench.attach();
  bench.device.hold();
  client.request({ command: WRITE, payload: Buffer.alloc(512, 1) });
  await expect.poll(() => bench.device.underWay).toBe(1);
  return client;
}

/** Reads the answers to GO up to the last. */
async function beLetIn(client: RawNbdClient): Promise<void> {
  for (const type of [3, 3, 1]) {
    expect(await client.optionReply()).toMatchObject({ option: GO, type });
  }
}

describe("a newer client", () => {
  test("is let in only when every request of the older one has settled", async () => {
    const older = await attachAndStall();
    const newer = await bench.knock();
    // It ends the older connection at once, and then has to wait for the device.
    await older.closed;
    let answered = false;
    const answer = beLetIn(newer).then(() => {
      answered = true;
      return bench.device.underWay;
    });
    await bench.roundTrip();
    expect(answered).toBe(false);
    expect(bench.events).toEqual(["attached"]);
    bench.device.release();
    expect(await answer).toBe(0);
    expect(bench.events).toEqual(["attached", "detached", "attached"]);
    expect(await newer.ask({ command: FLUSH })).toBe(0);
  });

  test("never sees an old write land after its own", async () => {
    let client = await bench.attach();
    for (let round = 1; round <= 10; round++) {
      bench.device.hold();
      for (let i = 0; i < 50; i++) {
        client.request({ command: WRITE, payload: Buffer.alloc(512, 0xee) });
      }
      await expect.poll(() => bench.device.underWay, { interval: 2 }).toBeGreaterThan(0);
      const attaching = bench.attach();
      await client.closed;
      bench.device.release();
      client = await attaching;
      expect(await client.ask({ command: WRITE, payload: Buffer.alloc(512, round) })).toBe(0);
      await bench.roundTrip();
      expect(bench.device.content[0]).toBe(round);
    }
  });

  test("starts nothing of the older one that had not begun", async () => {
    const older = await bench.attach();
    bench.device.hold();
    // One more than may be under way, and then one that lacks a byte.
    for (let i = 0; i < 129; i++) older.request({ command: TRIM, length: 512 });
    const write = rawRequest({ command: WRITE, payload: Buffer.alloc(16, 1) });
    older.send(write.subarray(0, -1));
    await expect.poll(() => bench.device.underWay).toBe(128);
    const attaching = bench.attach();
    await older.closed;
    bench.device.release();
    await attaching;
    expect(bench.device.calls).toHaveLength(128);
  });

  test("replaces those that still wait, and they do not use up the handshakes", async () => {
    await attachAndStall();
    let last = await bench.knock();
    for (let i = 0; i < 40; i++) {
      const next = await bench.knock();
      await last.closed;
      last = next;
    }
    bench.device.release();
    await beLetIn(last);
    expect(await last.ask({ command: FLUSH })).toBe(0);
    expect(bench.events).toEqual(["attached", "detached", "attached"]);
  });

  test("that leaves while it waits keeps nobody out", async () => {
    const older = await attachAndStall();
    const newer = await bench.knock();
    await older.closed;
    newer.end();
    bench.device.release();
    await expect.poll(() => bench.server.attached).toBe(false);
    const next = await bench.attach();
    expect(await next.ask({ command: FLUSH })).toBe(0);
  });

  test("of several that come at once is the only one that stays", async () => {
    const newcomers = await Promise.all([bench.knock(), bench.knock(), bench.knock()]);
    const left = newcomers.map((client) => client.closed);
    await Promise.any(left);
    await bench.roundTrip();
    expect(newcomers.filter((client) => !client.socket.destroyed)).toHaveLength(1);
    expect(bench.server.attached).toBe(true);
  });

  test("that only asks leaves the older one in peace", async () => {
    const older = await bench.attach();
    const asking = await bench.greet();
    expect((await asking.option(6, rawInfoData("disk0"))).at(-1)).toMatchObject({ type: 1 });
    expect((await asking.option(2)).at(-1)).toMatchObject({ type: 1 });
    await asking.closed;
    expect(await older.ask({ command: FLUSH })).toBe(0);
  });
});

describe("the handshake's time", () => {
  test("is 10 seconds, however far the client has come (CVE-2024-7409)", async () => {
    const clock = new ManualClock();
    await bench.serve({ clock });
    const silent = await bench.connect();
    await silent.receive(18);
    const slow = await bench.greet();
    clock.advance(9999);
    expect((await slow.option(3)).at(-1)).toMatchObject({ type: 1 });
    clock.advance(1);
    await Promise.all([silent.closed, slow.closed]);
    expect(bench.faults).toMatchObject([
      { code: "nbd-handshake-timeout" },
      { code: "nbd-handshake-timeout" },
    ]);
  });

  test("does not run while the server makes the client wait, nor afterwards", async () => {
    const clock = new ManualClock();
    await bench.serve({ clock });
    const older = await attachAndStall();
    const newer = await bench.knock();
    await older.closed;
    expect(clock.pending).toBe(0);
    clock.advance(60_000);
    bench.device.release();
    await beLetIn(newer);
    clock.advance(60_000);
    expect(await newer.ask({ command: FLUSH })).toBe(0);
  });
});

describe("handshakes at once", () => {
  test("are bounded, and the attached client is not among them (CVE-2024-7409)", async () => {
    await bench.serve({ connectionsMax: 2 });
    const attached = await bench.attach();
    const first = await bench.greet();
    await bench.greet();
    const third = await bench.connect();
    await third.closed;
    expect(await attached.ask({ command: FLUSH })).toBe(0);
    first.end();
    const greeted = async (): Promise<boolean> => {
      const client = await bench.connect();
      return await client.receive(18).then(
        () => true,
        () => false,
      );
    };
    await expect.poll(greeted).toBe(true);
  });

  test("of a hundred clients that say nothing end with the server (CVE-2024-7409)", async () => {
    const silent = await Promise.all(Array.from({ length: 100 }, () => bench.connect()));
    await bench.server.close();
    await Promise.all(silent.map((client) => client.closed));
    expect(bench.events).toEqual([]);
  });
});
