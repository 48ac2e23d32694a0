import { mkdtemp, rm } from "node:fs/promises";
import { createConnection, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, it } from "vitest";
import { systemClock } from "@vmferry/core";
import { limits } from "@vmferry/protocol";
import { PageSet } from "../../packages/agent/src/index.ts";
import {
  NAIVE_HEADER,
  naiveConfiguration,
  naiveRamStart,
  naiveSection,
  type NaivePage,
} from "../../packages/qemu/src/stream/naive-stream.ts";
import { RamTransfer, type Overflow } from "../../packages/source-agent/src/ram/ram-transfer.ts";
import { Transport } from "../../packages/source-agent/src/transport/transport.ts";

const { PAGE_BYTES } = limits;
const BLOCK = "pc.ram";
const PAGES = 6000;
/** In a window that nothing was measured for, and in buffers on the way. */
const UNDER_WAY_BYTES_MAX = 10 * 1024 * 1024;

let directory: string;
let qemu: Socket | null = null;
let transport: Transport;
let transfer: RamTransfer;
let store: Overflow;
let stored: number[];
/** That the link was given and the dest has not acknowledged. */
let sentBytes: number;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmferry-drain-"));
  sentBytes = 0;
  stored = [];
  const take = (_block: number, page: number): void => void stored.push(page);
  const pages = new PageSet([{ lengthBytes: PAGES * PAGE_BYTES }]);
  store = {
    ...{ pages, hasRoom: true, put: take, putZero: take },
    ...{ isZero: () => false, written: () => Promise.resolve(), readWritten: () => false },
  };
  transport = new Transport({
    connections: [
      {
        bufferedBytes: 0,
        send: (frame, flushed) => {
          // A barrier costs no credit.
          if (frame.length > limits.FRAME_HEADER_BYTES) sentBytes += frame.length;
          flushed();
        },
      },
    ],
    creditBytes: limits.CREDIT_BYTES_MAX,
    bandwidthBytesPerSecond: null,
    compression: false,
    clock: systemClock,
    onFailed: (error) => {
      throw error;
    },
  });
  transfer = await RamTransfer.open({
    socketPath: join(directory, "mig"),
    transport,
    hashSeed: "00112233445566ff",
    clock: systemClock,
    onRamSent: () => undefined,
    onFailed: (error) => {
      throw error;
    },
  });
});

afterEach(async () => {
  qemu?.destroy();
  transport.stop();
  await transfer.close();
  await rm(directory, { recursive: true });
});

function section(from: number, to: number): Buffer {
  const pages = Array.from({ length: to - from }, (_, index): NaivePage => ({
    block: BLOCK,
    page: from + index,
    seed: from + index,
  }));
  return naiveSection(0x02, 3, pages);
}

/** Until nothing is read any more, or all of it was. */
async function readOf(bytes: number): Promise<number> {
  for (let still = 0, before = -1; still < 10 && transfer.readBytes < bytes;) {
    still = transfer.readBytes === before ? still + 1 : 0;
    before = transfer.readBytes;
    await sleep(10);
  }
  return transfer.readBytes;
}

it("waits for the link, although QEMU is to be drained, and the second pass does not", async () => {
  qemu = createConnection(join(directory, "mig"));
  const head = Buffer.concat([
    NAIVE_HEADER,
    naiveConfiguration("pc-q35-10.0"),
    naiveRamStart(3, [{ name: BLOCK, pageCount: PAGES }]),
    section(0, 10),
  ]);
  qemu.write(head);
  expect(await readOf(head.length)).toBe(head.length);
  transfer.drain(store, () => null, "second-pass");
  const rest = section(10, PAGES);
  qemu.write(rest);
  expect(await readOf(head.length + rest.length)).toBeLessThan(UNDER_WAY_BYTES_MAX);
  expect(stored).toEqual([]);
  while (transfer.readBytes < head.length + rest.length) {
    const bytes = sentBytes;
    sentBytes = 0;
    transport.out.acknowledged(bytes);
    await sleep(1);
  }
  const second = section(0, PAGES);
  qemu.write(second);
  const all = head.length + rest.length + second.length;
  expect(await readOf(all)).toBe(all);
  expect(stored).toEqual(Array.from({ length: PAGES }, (_, page) => page));
});
