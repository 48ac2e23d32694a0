import { describe, expect, it } from "vitest";

import {
  NAIVE_HEADER,
  naiveCommand,
  naivePackage,
  naiveRamStart,
  naiveSection,
  str8,
  u32,
  u64,
} from "./naive-stream.ts";
import { decodeRamDiscard } from "./stream-command.ts";
import { StreamDecoder } from "./stream-decoder.ts";
import { refusalOf, StreamRecorder } from "./stream-recorder.ts";

const ID = 1;
const START = naiveRamStart(ID, [{ name: "pc.ram", pageCount: 16 }]);
const PREFIX = Buffer.concat([NAIVE_HEADER, START]);

function discard(block: string, ...ranges: readonly (readonly [bigint, bigint])[]): Buffer {
  const bytes = ranges.flatMap(([start, length]) => [u64(start), u64(length)]);
  return Buffer.concat([Buffer.of(0), str8(block), Buffer.of(0), ...bytes]);
}

function decode(pieces: readonly Buffer[]): StreamRecorder {
  const recorder = new StreamRecorder();
  const decoder = new StreamDecoder(recorder);
  for (const piece of pieces) decoder.push(piece);
  return recorder;
}

describe("commands", () => {
  it.each([
    [1, 0],
    [2, 4],
    [3, 0],
    [3, 16],
    [4, 0],
    [5, 0],
    [9, 0],
    [11, 0],
  ])("%d with %d bytes is reported and passed on", (command, bytes) => {
    const payload = Buffer.alloc(bytes, 5);
    const encoded = naiveCommand(command, payload);
    expect(decode([PREFIX, encoded]).events.slice(-2)).toEqual([
      ["command", command, payload.toString("hex")],
      ["verbatim", encoded.toString("hex")],
    ]);
  });

  it.each([
    [1, 1],
    [2, 3],
    [2, 5],
    [3, 8],
    [4, 1],
    [5, 1],
    [6, 2],
    [7, 8],
    [9, 1],
    [10, 0],
    [11, 4],
  ])("%d with %d bytes is refused", (command, bytes) => {
    const encoded = naiveCommand(command, Buffer.alloc(bytes, 0));
    expect(refusalOf(() => decode([PREFIX, encoded]))).toMatchObject({
      code: "stream-bad-command",
      payloadBytes: bytes,
    });
  });

  it.each([0, 12, 0xffff])("%d is refused as unknown, before its payload", (command) => {
    const head = naiveCommand(command, Buffer.alloc(100)).subarray(0, 5);
    expect(refusalOf(() => decode([PREFIX, head]))).toEqual({
      code: "stream-unknown-command",
      command,
    });
  });

  it("refuses COLO, whose stream does not end with device state", () => {
    const encoded = naiveCommand(8, Buffer.alloc(0));
    expect(refusalOf(() => decode([PREFIX, encoded]))).toEqual({
      code: "stream-unsupported-command",
      command: "ENABLE_COLO",
    });
  });

  it("asks for a bitmap by exactly one block name", () => {
    const encoded = naiveCommand(10, str8("pc.ram"));
    expect(decode([PREFIX, encoded]).events.at(-2)).toEqual(["command", 10, "0670632e72616d"]);
    const trailing = naiveCommand(10, Buffer.concat([str8("pc.ram"), Buffer.of(0)]));
    expect(refusalOf(() => decode([PREFIX, trailing]))).toMatchObject({
      code: "stream-bad-command",
    });
  });
});

describe("a discard", () => {
  const golden = "00" + "0670632e72616d" + "00" + "0000000000005000" + "0000000000002000";

  it("is decoded to its ranges", () => {
    expect(decodeRamDiscard(Buffer.from(golden, "hex"))).toEqual({
      block: "pc.ram",
      ranges: [{ startBytes: 0x5000, lengthBytes: 0x2000 }],
    });
    expect(discard("pc.ram", [0x5000n, 0x2000n]).toString("hex")).toBe(golden);
    expect(decodeRamDiscard(discard("m")).ranges).toEqual([]);
    expect(decodeRamDiscard(discard("m", [0n, 4096n], [2n ** 52n, 4096n])).ranges).toHaveLength(2);
  });

  it("is refused in every truncation and with a trailing byte", () => {
    const bytes = Buffer.from(golden, "hex");
    const emptyListBytes = 9;
    for (let length = 0; length < bytes.length; length++) {
      if (length === emptyListBytes) continue;
      const detail = refusalOf(() => decodeRamDiscard(bytes.subarray(0, length)));
      expect(detail.code, `${length} bytes`).toBe("stream-bad-command");
    }
    const trailing = Buffer.concat([bytes, Buffer.of(0)]);
    expect(refusalOf(() => decodeRamDiscard(trailing)).code).toBe("stream-bad-command");
  });

  it.each([
    ["another version", Buffer.concat([Buffer.of(1), discard("m", [0n, 1n]).subarray(1)])],
    ["an open name", Buffer.concat([Buffer.of(0), str8("m"), Buffer.of(1)])],
    ["a range beyond 2^53", discard("m", [2n ** 53n, 4096n])],
  ])("is refused with %s", (_what, payload) => {
    expect(refusalOf(() => decodeRamDiscard(payload)).code).toBe("stream-bad-command");
  });
});

describe("a package", () => {
  const nested = Buffer.from("this is a nested stream of device state 0203");
  const stream = Buffer.concat([
    PREFIX,
    naiveSection(0x02, ID, [{ block: "pc.ram", page: 1, seed: 1 }]),
    naiveCommand(6, discard("pc.ram", [0n, 4096n])),
    naivePackage(nested),
    naiveSection(0x02, ID, [{ block: null, page: 2, seed: null }]),
    naiveSection(0x03, ID, []),
    Buffer.of(0),
  ]);

  it("is announced, passed on and followed by more pages, which still continue the block", () => {
    const events = decode([stream]).events;
    const announced = events.findIndex(([kind, code]) => kind === "command" && code === 7);
    expect(events.slice(announced)).toEqual([
      ["command", 7, u32(nested.length).toString("hex")],
      ["verbatim", naivePackage(nested).toString("hex")],
      ["package-end"],
      ["zero-page", 0, 2],
      ["part-end"],
      ["part-end"],
      ["ram-end"],
      ["device-state", "00"],
    ]);
  });

  it("is the same however it is cut, and is never held back", () => {
    const whole = decode([stream]).events;
    const packageAt = stream.indexOf(nested);
    for (let cut = packageAt - 12; cut < stream.length; cut++) {
      const pieces = [stream.subarray(0, cut), stream.subarray(cut)];
      expect(decode(pieces).events, `cut at ${cut}`).toEqual(whole);
    }
    const half = decode([stream.subarray(0, packageAt + 4)]).events.at(-1);
    expect(half).toEqual(["verbatim", naivePackage(nested).subarray(0, 13).toString("hex")]);
  });

  it("turns the phase to post-copy once it is whole, even an empty one", () => {
    const decoder = new StreamDecoder(new StreamRecorder());
    decoder.push(PREFIX);
    const bytes = naivePackage(Buffer.of(1));
    decoder.push(bytes.subarray(0, bytes.length - 1));
    expect(decoder.phase).toBe("pre-copy");
    decoder.push(bytes.subarray(bytes.length - 1));
    expect(decoder.phase).toBe("post-copy");
    const empty = new StreamDecoder(new StreamRecorder());
    empty.push(Buffer.concat([PREFIX, naivePackage(Buffer.alloc(0))]));
    expect(empty.phase).toBe("post-copy");
  });

  it("is held to a limit before a byte of it is passed on", () => {
    const recorder = new StreamRecorder();
    const decoder = new StreamDecoder(recorder);
    decoder.push(PREFIX);
    const before = recorder.events.length;
    const detail = refusalOf(() => {
      decoder.push(naiveCommand(7, u32(2 ** 30 + 1)));
    });
    expect(detail).toMatchObject({ code: "stream-over-limit", value: 2 ** 30 + 1 });
    expect(recorder.events).toHaveLength(before);
  });

  it("is refused before RAM was announced", () => {
    const early = Buffer.concat([NAIVE_HEADER, naivePackage(nested)]);
    expect(refusalOf(() => decode([early]))).toEqual({
      code: "stream-unexpected-record",
      record: "PACKAGED",
    });
  });
});
