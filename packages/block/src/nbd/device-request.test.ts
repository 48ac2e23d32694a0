import { InvariantError } from "@vmferry/core";
import { beforeEach, describe, expect, test } from "vitest";
import { BlockError } from "../block-error.ts";
import { MemoryDevice } from "../memory-device.ts";
import { carryOut, encodeRefusal } from "./device-request.ts";
import type { DeviceCommand } from "./request-check.ts";

const MIB = 1024 * 1024;

let device: MemoryDevice;

beforeEach(() => {
  device = new MemoryDevice(8 * MIB);
});

async function run(
  command: DeviceCommand,
  { payload = Buffer.alloc(0), structuredReplies = true } = {},
): Promise<Buffer> {
  const request = { cookie: 7n, structuredReplies, command, payload };
  return Buffer.concat(await carryOut(request, device));
}

function read(offset: number, length: number, dontFragment = false): DeviceCommand {
  return { kind: "read", offset, length, dontFragment };
}

interface Chunk {
  readonly type: number;
  readonly done: boolean;
  readonly offset: number;
  readonly content: Buffer;
}

/** The chunks of the reply to a READ; the content of a hole is its zeroes. */
function chunksOf(reply: Buffer): Chunk[] {
  const chunks: Chunk[] = [];
  for (let at = 0; at < reply.length;) {
    expect(reply.readUInt32BE(at)).toBe(0x668e33ef);
    expect(reply.readBigUInt64BE(at + 8)).toBe(7n);
    const payload = reply.subarray(at + 20, at + 20 + reply.readUInt32BE(at + 16));
    const type = reply.readUInt16BE(at + 6);
    chunks.push({
      type,
      done: reply.readUInt16BE(at + 4) === 1,
      offset: Number(payload.readBigUInt64BE(0)),
      content: type === 1 ? payload.subarray(8) : Buffer.alloc(payload.readUInt32BE(8)),
    });
    at += 20 + payload.length;
  }
  return chunks;
}

const SUCCESS = Buffer.from("67446698000000000000000000000007", "hex");

describe("READ", () => {
  beforeEach(async () => {
    await device.write(0, Buffer.alloc(512, 0xaa));
    device.calls.length = 0;
  });

  test("is a simple reply with the data where replies are simple", async () => {
    const reply = await run(read(256, 512), { structuredReplies: false });
    expect(reply).toEqual(Buffer.concat([SUCCESS, Buffer.alloc(256, 0xaa), Buffer.alloc(256)]));
  });

  test("is one chunk where replies are structured", async () => {
    const chunks = chunksOf(await run(read(256, 256)));
    expect(chunks).toEqual([
      { type: 1, done: true, offset: 256, content: Buffer.alloc(256, 0xaa) },
    ]);
    expect(device.calls).toHaveLength(1);
  });

  test("of a long range sends no zeroes for its holes, and does not read them", async () => {
    await device.write(3 * MIB, Buffer.alloc(MIB, 0xbb));
    device.calls.length = 0;
    const chunks = chunksOf(await run(read(100, 8 * MIB - 100)));
    expect(chunks.map(({ type, done, offset }) => [type, done, offset])).toEqual([
      [1, false, 100],
      [2, false, 4096],
      [1, false, 3 * MIB],
      [2, true, 4 * MIB],
    ]);
    const content = Buffer.concat(chunks.map((chunk) => chunk.content));
    expect(content.equals(device.content.subarray(100))).toBe(true);
    expect(device.calls.slice(1)).toEqual([
      { operation: "read", offset: 100, length: 3996 },
      { operation: "read", offset: 3 * MIB, length: MIB },
    ]);
  });

  test("with DF is one chunk, however sparse", async () => {
    const chunks = chunksOf(await run(read(0, 8 * MIB, true)));
    expect(chunks).toHaveLength(1);
    expect(chunks[0]!.content.equals(device.content)).toBe(true);
  });

  test("of a range in very many pieces is one chunk", async () => {
    for (let offset = 0; offset < MIB; offset += 8192) {
      await device.write(offset, Buffer.alloc(1, 1));
    }
    expect(chunksOf(await run(read(0, MIB)))).toHaveLength(1);
  });

  test("reads what the device's extents leave out", async () => {
    device.extents = (offset) => Promise.resolve([{ offset, length: 512, kind: "zero" }]);
    const chunks = chunksOf(await run(read(4096, MIB)));
    expect(chunks.map(({ type, offset, content }) => [type, offset, content.length])).toEqual([
      [2, 4096, 512],
      [1, 4608, MIB - 512],
    ]);
  });

  test("that the device answers in the wrong length is no reply", async () => {
    device.read = () => Promise.resolve(Buffer.alloc(511));
    await expect(run(read(0, 512))).rejects.toThrow(InvariantError);
    await expect(run(read(0, 512), { structuredReplies: false })).rejects.toThrow(InvariantError);
  });
});

describe("a command that changes the export", () => {
  const payload = Buffer.alloc(512, 0xcc);

  test.each<[DeviceCommand, object]>([
    [
      { kind: "write", offset: 512, length: 512, fua: false },
      { operation: "write", offset: 512, length: 512 },
    ],
    [
      { kind: "trim", offset: 0, length: 4096, fua: false },
      { operation: "trim", offset: 0, length: 4096 },
    ],
    [
      { kind: "write-zeroes", offset: 0, length: 4096, fua: false, mayPunch: false },
      { operation: "write-zeroes", offset: 0, length: 4096, mayPunch: false },
    ],
    [
      { kind: "write-zeroes", offset: 0, length: 4096, fua: false, mayPunch: true },
      { operation: "write-zeroes", offset: 0, length: 4096, mayPunch: true },
    ],
  ])("%o goes to the device, and with FUA a flush after it", async (command, call) => {
    expect(await run(command, { payload })).toEqual(SUCCESS);
    expect(device.calls).toEqual([call]);
    device.calls.length = 0;
    expect(await run({ ...command, fua: true } as DeviceCommand, { payload })).toEqual(SUCCESS);
    expect(device.calls).toEqual([call, { operation: "flush", offset: 0, length: 0 }]);
  });

  test("with FUA does not flush before it is done", async () => {
    device.hold();
    const reply = run({ kind: "write", offset: 0, length: 512, fua: true }, { payload });
    await new Promise((resolve) => setImmediate(resolve));
    expect(device.calls.map(({ operation }) => operation)).toEqual(["write"]);
    device.release();
    await reply;
    expect(device.calls.map(({ operation }) => operation)).toEqual(["write", "flush"]);
  });

  test("hands the device the payload itself", async () => {
    let written: Buffer | null = null;
    device.write = (_, data) => {
      written = data;
      return Promise.resolve();
    };
    await run({ kind: "write", offset: 0, length: 512, fua: false }, { payload });
    expect(written).toBe(payload);
  });
});

test("FLUSH is the device's, and CACHE is nobody's", async () => {
  expect(await run({ kind: "flush" })).toEqual(SUCCESS);
  expect(device.calls.map(({ operation }) => operation)).toEqual(["flush"]);
  expect(await run({ kind: "cache" })).toEqual(SUCCESS);
  expect(device.calls).toHaveLength(1);
});

describe("BLOCK_STATUS", () => {
  async function status(
    offset: number,
    length: number,
    oneExtent = false,
  ): Promise<[length: number, flags: number][]> {
    const reply = await run({ kind: "block-status", offset, length, oneExtent });
    expect(reply.subarray(0, 16).toString("hex")).toBe("668e33ef000100050000000000000007");
    expect(reply.readUInt32BE(16)).toBe(reply.length - 20);
    const extents: [number, number][] = [];
    for (let at = 24; at < reply.length; at += 8) {
      extents.push([reply.readUInt32BE(at), reply.readUInt32BE(at + 4)]);
    }
    return extents;
  }

  beforeEach(async () => {
    await device.write(8192, Buffer.alloc(8192, 1));
  });

  test("tells data from holes", async () => {
    const expected = [
      [8192, 3],
      [8192, 0],
      [8 * MIB - 16384, 3],
    ];
    expect(await status(0, 8 * MIB)).toEqual(expected);
  });

  test("tells exactly of the range that was asked for (nbdkit CVE-2025-47711)", async () => {
    expect(await status(4097, 8193)).toEqual([
      [4095, 3],
      [4098, 0],
    ]);
    expect(await status(8 * MIB - 1, 1)).toEqual([[1, 3]]);
  });

  test("with REQ_ONE tells of one extent", async () => {
    expect(await status(0, 8 * MIB, true)).toEqual([[8192, 3]]);
  });

  test("tells of a bounded number of extents", async () => {
    device.extents = (offset, length) =>
      Promise.resolve(
        Array.from({ length: length / 512 }, (_, index) => ({
          offset: offset + index * 512,
          length: 512,
          kind: index % 2 === 0 ? "data" : "zero",
        })),
      );
    expect(await status(0, 8 * MIB)).toHaveLength(4096);
  });

  test("of a range of nearly 4 GiB fits its 32 bits (nbdkit CVE-2025-47712)", async () => {
    device.extents = (offset) => Promise.resolve([{ offset, length: 2 ** 40, kind: "zero" }]);
    expect(await status(0, 2 ** 32 - 1)).toEqual([[2 ** 32 - 1, 3]]);
  });
});

test("a request that the device refuses rejects, and no part of a reply was made", async () => {
  device.failure = new BlockError("full", {
    code: "block-io",
    errno: "ENOSPC",
    operation: "write",
    offset: 0,
  });
  const range = { offset: 0, length: 2 * MIB, fua: true };
  for (const command of [
    read(0, 512),
    read(0, 2 * MIB),
    { kind: "write", ...range },
    { kind: "trim", ...range },
    { kind: "write-zeroes", ...range, mayPunch: true },
    { kind: "flush" },
    { kind: "block-status", ...range, oneExtent: false },
  ] as const) {
    await expect(run(command)).rejects.toBe(device.failure);
  }
});

test("a refusal has the form that was agreed on", () => {
  const simple = encodeRefusal({ cookie: 7n, structuredReplies: false }, 22);
  expect(simple.toString("hex")).toBe("67446698000000160000000000000007");
  const chunk = encodeRefusal({ cookie: 7n, structuredReplies: true }, 22);
  expect(chunk.subarray(0, 8).toString("hex")).toBe("668e33ef00018001");
});
