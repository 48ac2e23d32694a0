import { describe, expect, it } from "vitest";

import {
  NAIVE_ADVISE,
  NAIVE_HEADER,
  naiveCommand,
  naivePackage,
  naivePackageOf,
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
const ADVISED = Buffer.concat([NAIVE_HEADER, NAIVE_ADVISE, START]);

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
    [11, 0],
  ])("%d with %d bytes is reported and passed on", (command, bytes) => {
    const payload = Buffer.alloc(bytes, 5);
    const encoded = naiveCommand(command, payload);
    expect(decode([PREFIX, encoded]).events.slice(-2)).toEqual([
      ["command", command, payload.toString("hex")],
      ["verbatim", encoded.toString("hex")],
    ]);
  });

  it("announce post-copy before memory, once", () => {
    for (const advise of [NAIVE_ADVISE, naiveCommand(3, Buffer.alloc(0))]) {
      const events = decode([NAIVE_HEADER, advise]).events;
      expect(events.at(-1)).toEqual(["verbatim", advise.toString("hex")]);
    }
    for (const late of [
      [PREFIX, NAIVE_ADVISE],
      [NAIVE_HEADER, NAIVE_ADVISE, NAIVE_ADVISE],
    ]) {
      expect(refusalOf(() => decode(late))).toEqual({
        code: "stream-unexpected-record",
        record: "POSTCOPY_ADVISE",
      });
    }
  });

  it.each([
    [4096n, 8192n],
    [0n, 4096n],
  ])("refuses to be announced host pages %d and target pages %d", (host, target) => {
    const advise = naiveCommand(3, Buffer.concat([u64(host), u64(target)]));
    expect(refusalOf(() => decode([NAIVE_HEADER, advise]))).toMatchObject({
      code: "stream-bad-command",
    });
  });

  it.each([
    ["POSTCOPY_LISTEN", naiveCommand(4, Buffer.alloc(0))],
    ["POSTCOPY_RUN", naiveCommand(5, Buffer.alloc(0))],
    ["POSTCOPY_RESUME", naiveCommand(9, Buffer.alloc(0))],
    ["RECV_BITMAP", naiveCommand(10, str8("pc.ram"))],
  ])("refuse %s on the connection that begins a migration", (record, encoded) => {
    expect(refusalOf(() => decode([ADVISED, encoded]))).toEqual({
      code: "stream-unexpected-record",
      record,
    });
  });

  it("refuse discards and packages that were not announced", () => {
    for (const encoded of [
      naiveCommand(6, discard("pc.ram", [0n, 4096n])),
      naivePackage(Buffer.alloc(3)),
    ]) {
      expect(refusalOf(() => decode([PREFIX, encoded])).code).toBe("stream-unexpected-record");
      const early = [NAIVE_HEADER, NAIVE_ADVISE, encoded];
      expect(refusalOf(() => decode(early)).code).toBe("stream-unexpected-record");
      const late = [ADVISED, naivePackage(Buffer.alloc(3)), encoded];
      expect(refusalOf(() => decode(late)).code).toBe("stream-unexpected-record");
    }
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

describe("a discard in the stream", () => {
  it.each([
    ["the whole block", discard("pc.ram", [0n, 65_536n])],
    ["nothing", discard("pc.ram")],
    ["two ranges", discard("pc.ram", [0n, 4096n], [8192n, 4096n])],
  ])("of %s is passed on", (_what, payload) => {
    expect(decode([ADVISED, naiveCommand(6, payload)]).events.at(-2)?.[1]).toBe(6);
  });

  it.each([
    ["beyond its block", discard("pc.ram", [4096n, 65_536n]), "stream-bad-command"],
    ["far beyond it", discard("pc.ram", [2n ** 52n, 4096n]), "stream-bad-command"],
    ["not at a page", discard("pc.ram", [1n, 4096n]), "stream-bad-command"],
    ["of half a page", discard("pc.ram", [0n, 2048n]), "stream-bad-command"],
    ["of no length", discard("pc.ram", [0n, 4096n], [4096n, 0n]), "stream-bad-command"],
    ["of another block", discard("pc.rom", [0n, 4096n]), "stream-unknown-block"],
  ])("is refused %s", (_what, payload, code) => {
    expect(refusalOf(() => decode([ADVISED, naiveCommand(6, payload)])).code).toBe(code);
  });

  it("has to be of whole host pages where those are larger", () => {
    const advise = naiveCommand(3, Buffer.concat([u64(2n ** 21n + 4096n), u64(4096n)]));
    const start = naiveRamStart(ID, [{ name: "huge", pageCount: 1024, hostPageBytes: 2 ** 21 }]);
    const prefix = Buffer.concat([NAIVE_HEADER, advise, start]);
    decode([prefix, naiveCommand(6, discard("huge", [2n ** 21n, 2n ** 21n]))]);
    const small = naiveCommand(6, discard("huge", [0n, 4096n]));
    expect(refusalOf(() => decode([prefix, small])).code).toBe("stream-bad-command");
  });
});

describe("a package", () => {
  const devices = Buffer.from("this is a nested stream of device state 0203");
  const nested = naivePackageOf(devices);
  const stream = Buffer.concat([
    ADVISED,
    naiveSection(0x02, ID, [{ block: "pc.ram", page: 1, seed: 1 }]),
    naiveCommand(6, discard("pc.ram", [0n, 4096n])),
    naivePackage(devices),
    naiveSection(0x02, ID, [{ block: null, page: 2, seed: null }]),
    naiveSection(0x03, ID, []),
    Buffer.of(0),
  ]);

  it("is announced, passed on and followed by more pages, which still continue the block", () => {
    const events = decode([stream]).events;
    const announced = events.findIndex(([kind, code]) => kind === "command" && code === 7);
    expect(events.slice(announced)).toEqual([
      ["command", 7, u32(nested.length).toString("hex")],
      ["verbatim", naivePackage(devices).toString("hex")],
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
    const half = decode([stream.subarray(0, packageAt + 7)]).events.at(-1);
    expect(half).toEqual(["verbatim", naivePackage(devices).subarray(0, 16).toString("hex")]);
  });

  it("turns the phase to post-copy once it is whole, even one without a device", () => {
    const decoder = new StreamDecoder(new StreamRecorder());
    decoder.push(ADVISED);
    const bytes = naivePackage(Buffer.of(1));
    decoder.push(bytes.subarray(0, bytes.length - 1));
    expect(decoder.phase).toBe("pre-copy");
    decoder.push(bytes.subarray(bytes.length - 1));
    expect(decoder.phase).toBe("post-copy");
    const empty = new StreamDecoder(new StreamRecorder());
    empty.push(Buffer.concat([ADVISED, naivePackage(Buffer.alloc(0))]));
    expect(empty.phase).toBe("post-copy");
  });

  it("is held to a limit before a byte of it is passed on", () => {
    const recorder = new StreamRecorder();
    const decoder = new StreamDecoder(recorder);
    decoder.push(ADVISED);
    const before = recorder.events.length;
    const detail = refusalOf(() => {
      decoder.push(naiveCommand(7, u32(2 ** 26 + 1)));
    });
    expect(detail).toMatchObject({ code: "stream-over-limit", value: 2 ** 26 + 1 });
    expect(recorder.events).toHaveLength(before);
  });

  it("is refused unless it begins with LISTEN, before a byte of that is passed on", () => {
    for (let at = 0; at < 5; at++) {
      const bytes = naivePackage(devices);
      bytes[9 + at]! ^= 1;
      const recorder = new StreamRecorder();
      const decoder = new StreamDecoder(recorder);
      decoder.push(ADVISED);
      expect(
        refusalOf(() => {
          decoder.push(bytes);
        }),
      ).toMatchObject({ code: "stream-bad-package" });
      const header = bytes.subarray(0, 9).toString("hex");
      expect(recorder.events.at(-1)).toEqual(["verbatim", header]);
    }
  });

  it("is refused unless it ends with RUN, before that is passed on", () => {
    for (let at = 1; at <= 5; at++) {
      const bytes = naivePackage(devices);
      bytes[bytes.length - at]! ^= 1;
      const pieces = Array.from(bytes, (byte) => Buffer.of(byte));
      const recorder = new StreamRecorder();
      const decoder = new StreamDecoder(recorder);
      decoder.push(ADVISED);
      const refusal = refusalOf(() => {
        for (const piece of pieces) decoder.push(piece);
      });
      expect(refusal).toMatchObject({ code: "stream-bad-package" });
      expect(recorder.events.at(-1)).toEqual(["verbatim", bytes.subarray(0, -5).toString("hex")]);
    }
  });

  it.each([0, 9])("is refused with %d bytes, which cannot hold both", (bytes) => {
    const header = naiveCommand(7, u32(bytes));
    expect(refusalOf(() => decode([ADVISED, header])).code).toBe("stream-bad-package");
  });
});

describe("the end of a post-copy", () => {
  const whole = Buffer.concat([
    ADVISED,
    naivePackage(Buffer.alloc(9)),
    naiveSection(0x03, ID, []),
    Buffer.of(0),
  ]);

  it("is EOF, and only then the stream may be closed", () => {
    const decoder = new StreamDecoder(new StreamRecorder());
    decoder.push(whole);
    expect(decoder.phase).toBe("complete");
    decoder.end();
    expect(decoder.phase).toBe("ended");
    for (let length = 0; length < whole.length; length++) {
      const cut = new StreamDecoder(new StreamRecorder());
      cut.push(whole.subarray(0, length));
      expect(
        refusalOf(() => {
          cut.end();
        }).code,
        `${length} bytes`,
      ).toBe("stream-truncated");
    }
  });

  it("is nothing but EOF", () => {
    const more = Buffer.concat([whole, Buffer.of(0)]);
    expect(refusalOf(() => decode([more])).code).toBe("stream-unexpected-record");
    const description = Buffer.concat([whole.subarray(0, -1), Buffer.of(6)]);
    expect(refusalOf(() => decode([description])).code).toBe("stream-unexpected-record");
  });
});
