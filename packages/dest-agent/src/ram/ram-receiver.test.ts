import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { PageHashes } from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import type { StreamSink } from "./qemu-sink.ts";
import type { RamReceiver } from "./ram-receiver.ts";
import {
  BLOCKS,
  contentPage,
  HASH_SEED,
  prelude,
  RAM_BYTES,
  ReceiverBench,
  type ReceiverBenchOptions,
  settle,
} from "./receiver-bench.ts";

const { FRAME_HEADER_BYTES, PAGE_BYTES, RUN_BYTES } = limits;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

let qemu: ReceiverBench["qemu"];
let receiver: RamReceiver;
let source: ReceiverBench["source"];
let running: Promise<void>;
let bench: ReceiverBench;

function begin(options: ReceiverBenchOptions = {}): void {
  bench = new ReceiverBench(options);
  ({ qemu, receiver, source, running } = bench);
}

beforeEach(() => {
  begin();
});

describe("what arrives", () => {
  test("is fed to QEMU in order: prelude, pages, the end of RAM, device state", async () => {
    await bench.announce();
    expect(receiver.totalBytes).toBe(RAM_BYTES);
    source.pages(0, [
      [5, 2, 7],
      [20, 3, 0],
      [99, 1, 8],
    ]);
    source.pages(1, [[3, 1, 9]]);
    source.nextPass();
    source.pages(0, [[5, 1, 1]]);
    source.nextPass();
    source.ramEnd();
    source.stream(Buffer.from("devices"));
    await settle();
    expect(receiver.ramEnded.settled).toBe(true);
    expect(qemu.deviceState).toBe("devices");
    expect(Object.fromEntries(qemu.memory)).toEqual({
      "0.5": "1",
      "0.6": "7",
      "0.20": "0",
      "0.21": "0",
      "0.22": "0",
      "0.99": "8",
      "1.3": "9",
    });
    expect(receiver.counters).toMatchObject({ fedPages: 5, zeroPages: 3 });
  });

  test("is what the digest covers", async () => {
    await bench.announce();
    source.pages(0, [
      [0, 1, 3],
      [1, 40, 0],
    ]);
    await settle();
    const hashes = new PageHashes(BLOCKS, HASH_SEED);
    hashes.set(0, hashes.hash(contentPage(3)));
    hashes.setZero(1, 40);
    expect(receiver.digest()).toBe(hashes.digest());
  });

  test("waits until every connection has ended the pass before", async () => {
    begin({ connections: 2 });
    await bench.announce(2);
    source.pages(0, [[1, 1, 5]], { connection: 0 });
    source.barrier({ connection: 0 });
    source.pages(0, [[1, 1, 6]], { connection: 0, pass: 2 });
    await settle();
    expect(qemu.memory.get("0.1")).toBe("5");
    source.pages(0, [[2, 1, 5]], { connection: 1 });
    source.barrier({ connection: 1 });
    await settle();
    expect(qemu.memory.get("0.1")).toBe("6");
    expect(qemu.memory.get("0.2")).toBe("5");
  });

  test("of the prelude may be cut anywhere, and reaches QEMU whole", async () => {
    for (let at = 0; at < prelude.length; at += 5) source.stream(prelude.subarray(at, at + 5));
    source.nextPass();
    source.pages(0, [[1, 1, 5]]);
    await settle();
    expect(qemu.memory.get("0.1")).toBe("5");
    expect(bench.creditBytes).toBe(source.sentBytes);
  });

  test("is not fed any more once the receiver was stopped", async () => {
    await bench.announce();
    const { writes } = qemu;
    source.pages(0, [[1, 1, 5]]);
    receiver.stop();
    await running;
    await settle();
    expect(qemu.writes).toBe(writes);
  });

  test("ends the run when QEMU does not take it", async () => {
    const sink: StreamSink = { write: () => Promise.reject(new Error("QEMU is gone")) };
    begin({ sink });
    source.stream(prelude);
    await expect(running).rejects.toThrow("QEMU is gone");
  });
});

describe("credit", () => {
  test("comes back when QEMU has taken the bytes, not before", async () => {
    await bench.announce();
    const before = bench.creditBytes;
    expect(before).toBe(source.sentBytes);
    qemu.hold = true;
    source.pages(0, [[1, 4, 5]]);
    await settle();
    expect(bench.creditBytes).toBe(before);
    qemu.hold = false;
    qemu.release();
    await settle();
    expect(bench.creditBytes).toBe(source.sentBytes);
  });

  test("comes back for zero pages when they were written", async () => {
    await bench.announce();
    const before = bench.creditBytes;
    qemu.hold = true;
    source.pages(0, [[0, 100, 0]]);
    await settle();
    expect(bench.creditBytes).toBe(before);
    qemu.release();
    await settle();
    expect(bench.creditBytes).toBe(before + FRAME_HEADER_BYTES + RUN_BYTES);
  });

  test("may be used up to the last byte", async () => {
    const frameBytes = FRAME_HEADER_BYTES + RUN_BYTES + 10 * PAGE_BYTES;
    begin({ creditBytes: 3 * frameBytes });
    await bench.announce();
    qemu.hold = true;
    for (let i = 0; i < 3; i++) source.pages(0, [[i * 10, 10, 1]]);
    expect(() => {
      source.stream(Buffer.alloc(0));
    }).toThrow("credit exceeded");
  });

  test("is not spent on barriers", async () => {
    begin({ creditBytes: prelude.length + FRAME_HEADER_BYTES });
    await bench.announce();
    for (let i = 0; i < 1000; i++) source.nextPass();
    await settle();
    expect(bench.creditBytes).toBe(source.sentBytes);
  });

  test(`is in total exactly what was sent, and never more under way than given (SEED=${seed})`, async () => {
    const run = fc.tuple(fc.nat(9), fc.integer({ min: 1, max: 10 }), fc.nat(3));
    const property = fc.asyncProperty(
      fc.array(fc.tuple(run, fc.boolean(), fc.nat(3)), { maxLength: 40 }),
      async (frames) => {
        begin();
        await bench.announce();
        qemu.hold = true;
        for (const [[place, pages, content], release, barrier] of frames) {
          source.pages(0, [[place * 10, pages, content]]);
          expect(bench.creditBytes).toBeLessThanOrEqual(source.sentBytes);
          if (barrier === 0) source.nextPass();
          if (!release) continue;
          qemu.release();
          await new Promise((resolve) => setImmediate(resolve));
        }
        qemu.hold = false;
        for (let turn = 0; turn < 50; turn++) {
          qemu.release();
          await new Promise((resolve) => setImmediate(resolve));
        }
        expect(bench.creditBytes).toBe(source.sentBytes);
        receiver.stop();
        await running;
      },
    );
    await fc.assert(property, { seed, numRuns: 30 });
  });
});
