import { readFileSync } from "node:fs";

import { describe, expect, it } from "vitest";

import {
  digest,
  NAIVE_EOS,
  NAIVE_HEADER,
  naiveCommand,
  naiveConfiguration,
  naiveFooter,
  naivePage,
  naiveRamStart,
  naiveSection,
  naiveSectionHead,
  pageBytes,
  str8,
  u32,
  type NaiveBlock,
  type StreamEvent,
} from "./naive-stream.ts";
import { StreamDecoder } from "./stream-decoder.ts";
import { StreamError } from "./stream-error.ts";
import { recordStream, refusalOfStream, StreamRecorder } from "./stream-recorder.ts";

const BLOCKS: readonly NaiveBlock[] = [
  { name: "pc.ram", pageCount: 64 },
  { name: "/rom@etc/acpi/tables", pageCount: 2 },
];
const BLOCK_LIST =
  '[{"name":"pc.ram","lengthBytes":262144},{"name":"/rom@etc/acpi/tables","lengthBytes":8192}]';
const ID = 7;
const CONFIGURATION = naiveConfiguration("pc-q35-7.2");
const START = naiveRamStart(ID, BLOCKS);
const DEVICES = Buffer.from("0400000003056465763000000000", "hex");
/** A whole small pre-copy stream: zero pages, data pages, both blocks, two parts. */
const STREAM = Buffer.concat([
  NAIVE_HEADER,
  CONFIGURATION,
  naiveCommand(1, Buffer.alloc(0)),
  naiveCommand(2, u32(1)),
  START,
  naiveSection(0x02, ID, [
    { block: "pc.ram", page: 0, seed: 1 },
    { block: null, page: 1, seed: null },
    { block: null, page: 63, seed: 2 },
    { block: "/rom@etc/acpi/tables", page: 1, seed: null },
  ]),
  naiveSection(0x02, ID, [{ block: null, page: 0, seed: 3 }]),
  naiveCommand(11, Buffer.alloc(0)),
  naiveSection(0x03, ID, [{ block: null, page: 1, seed: 4 }]),
  DEVICES,
]);
const PREFIX = Buffer.concat([NAIVE_HEADER, CONFIGURATION, START]);

function hex(...pieces: readonly Uint8Array[]): string {
  return Buffer.concat(pieces).toString("hex");
}

describe("a whole stream", () => {
  it("is reported in stream order", () => {
    const expected: StreamEvent[] = [
      ["verbatim", hex(NAIVE_HEADER, CONFIGURATION)],
      ["command", 1, ""],
      ["verbatim", "0800010000"],
      ["command", 2, "00000001"],
      ["verbatim", hex(Buffer.from("080002000400000001", "hex"), START)],
      ["ram-start", ID, BLOCK_LIST],
      ["part-end"],
      ["page", 0, 0, digest(pageBytes(1))],
      ["zero-page", 0, 1],
      ["page", 0, 63, digest(pageBytes(2))],
      ["zero-page", 1, 1],
      ["part-end"],
      ["page", 1, 0, digest(pageBytes(3))],
      ["part-end"],
      ["command", 11, ""],
      ["verbatim", "08000b0000"],
      ["page", 1, 1, digest(pageBytes(4))],
      ["part-end"],
      ["ram-end"],
      ["device-state", hex(DEVICES)],
    ];
    expect(recordStream([STREAM]).events).toEqual(expected);
  });

  it("tells its phase as it goes", () => {
    const decoder = new StreamDecoder(new StreamRecorder());
    const phases = [decoder.phase];
    for (const piece of [NAIVE_HEADER, CONFIGURATION, START, naiveSection(3, ID, []), DEVICES]) {
      decoder.push(piece);
      phases.push(decoder.phase);
    }
    decoder.end();
    phases.push(decoder.phase);
    expect(phases).toEqual([
      "header",
      "setup",
      "setup",
      "pre-copy",
      "device-state",
      "device-state",
      "ended",
    ]);
  });

  it("says the same when it is split in two at any byte", () => {
    const whole = recordStream([STREAM]).events;
    for (let cut = 1; cut < STREAM.length; cut++) {
      const { events } = recordStream([STREAM.subarray(0, cut), STREAM.subarray(cut)]);
      if (JSON.stringify(events) !== JSON.stringify(whole)) expect(events, `at ${cut}`).toBe(whole);
    }
  });

  it("says the same when it comes a byte at a time", () => {
    const bytes = Array.from(STREAM, (byte) => Buffer.of(byte));
    expect(recordStream(bytes).events).toEqual(recordStream([STREAM]).events);
  });

  it("is refused as truncated wherever it stops before device state", () => {
    const devicesAt = STREAM.length - DEVICES.length;
    for (let length = 0; length <= devicesAt; length++) {
      const detail = refusalOfStream(STREAM.subarray(0, length));
      if (detail.code !== "stream-truncated") expect.fail(`${length} bytes: ${detail.code}`);
    }
    expect(recordStream([STREAM.subarray(0, devicesAt + 1)]).events.at(-1)).toEqual([
      "device-state",
      "04",
    ]);
  });

  it("reports pages in the chunk they came in, and copies only one that lies across two", () => {
    const cut = PREFIX.length + 5 + 15 + 100;
    const page = (at: number): Buffer => naivePage({ block: null, page: at, seed: at });
    const stream = Buffer.concat([
      PREFIX,
      Buffer.of(0x02),
      u32(ID),
      naivePage({ block: "pc.ram", page: 0, seed: 0 }),
      page(1),
      page(2),
    ]);
    const recorder = new StreamRecorder();
    const decoder = new StreamDecoder(recorder);
    const second = stream.subarray(cut);
    decoder.push(stream.subarray(0, cut));
    decoder.push(second);
    expect(recorder.pageBuffers.map((buffer) => buffer === second)).toEqual([false, true, true]);
    expect(recorder.events.slice(-3)).toEqual([
      ["page", 0, 0, digest(pageBytes(0))],
      ["page", 0, 1, digest(pageBytes(1))],
      ["page", 0, 2, digest(pageBytes(2))],
    ]);
  });

  it("stays failed once it was refused", () => {
    const decoder = new StreamDecoder(new StreamRecorder());
    const bad = Buffer.from("not a stream at all");
    expect(() => {
      decoder.push(bad);
    }).toThrow(StreamError);
    expect(decoder.phase).toBe("failed");
    expect(() => {
      decoder.push(STREAM);
    }).toThrow(/0x6e6f7420/);
    expect(() => {
      decoder.end();
    }).toThrow(/0x6e6f7420/);
  });
});

describe("the recorded head of a QEMU 7.2 stream", () => {
  const recorded = readFileSync(new URL("fixtures/precopy72_head4k.bin", import.meta.url));
  const recorder = new StreamRecorder();
  const decoder = new StreamDecoder(recorder);
  decoder.push(recorded);

  it("decodes up to the page in which it was cut", () => {
    const [header, open, openBytes, ping, pingBytes, ramStart, ...rest] = recorder.events;
    expect(header).toEqual([
      "verbatim",
      hex(NAIVE_HEADER, Buffer.from("070000000a70632d7133352d372e32", "hex")),
    ]);
    expect([open, openBytes, ping]).toEqual([
      ["command", 1, ""],
      ["verbatim", "0800010000"],
      ["command", 2, "00000001"],
    ]);
    expect(pingBytes?.[1]).toBe(recorded.subarray(28, 0xcf).toString("hex"));
    expect(ramStart?.slice(0, 2)).toEqual(["ram-start", 2]);
    expect(JSON.parse(String(ramStart?.[2]))).toEqual([
      { name: "pc.ram", lengthBytes: 0x6000000 },
      { name: "/rom@etc/acpi/tables", lengthBytes: 0x20000 },
      { name: "pc.bios", lengthBytes: 0x40000 },
      { name: "pc.rom", lengthBytes: 0x20000 },
      { name: "/rom@etc/table-loader", lengthBytes: 0x1000 },
      { name: "/rom@etc/acpi/rsdp", lengthBytes: 0x1000 },
    ]);
    expect(rest).toEqual([["part-end"]]);
  });

  it("is truncated there", () => {
    expect(() => {
      decoder.end();
    }).toThrow(StreamError);
  });
});

describe("configuration", () => {
  const subsection = (name: string, fields: Buffer, version = 1): Buffer =>
    Buffer.concat([Buffer.of(0x05), str8(`configuration/${name}`), u32(version), fields]);
  const withSubsection = (bytes: Buffer): Buffer =>
    Buffer.concat([NAIVE_HEADER, CONFIGURATION, bytes, STREAM.subarray(8 + CONFIGURATION.length)]);

  it("may be left out by a machine that does not send it", () => {
    const without = Buffer.concat([NAIVE_HEADER, STREAM.subarray(8 + CONFIGURATION.length)]);
    expect(recordStream([without]).events[0]).toEqual(["verbatim", hex(NAIVE_HEADER)]);
  });

  it("may carry a page size, a UUID and harmless capabilities, which are passed on", () => {
    const extra = Buffer.concat([
      subsection("target-page-bits", u32(12)),
      subsection("uuid", Buffer.alloc(16, 9)),
      subsection("capabilities", Buffer.concat([u32(2), str8("xbzrle"), str8("events")])),
    ]);
    expect(recordStream([withSubsection(extra)]).events[0]).toEqual([
      "verbatim",
      hex(NAIVE_HEADER, CONFIGURATION, extra),
    ]);
  });

  it.each([
    ["target-page-bits", u32(14)],
    ["capabilities", Buffer.concat([u32(1), str8("x-ignore-shared")])],
    ["capabilities", Buffer.concat([u32(1), str8("mapped-ram")])],
    ["something-else", u32(0)],
  ])("is refused where it makes the stream another one: %s", (name, fields) => {
    expect(refusalOfStream(withSubsection(subsection(name, fields)))).toMatchObject({
      code: "stream-unsupported-configuration",
    });
  });

  it("is refused with a subsection of another version", () => {
    expect(refusalOfStream(withSubsection(subsection("uuid", Buffer.alloc(16), 2)))).toEqual({
      code: "stream-unsupported-configuration",
      subsection: "configuration/uuid",
    });
  });

  it.each([
    ["machine name", Buffer.concat([NAIVE_HEADER, Buffer.of(7), u32(256)])],
    ["capability count", withSubsection(subsection("capabilities", u32(65)))],
  ])("is held to a limit: %s", (field, stream) => {
    expect(refusalOfStream(stream)).toMatchObject({ code: "stream-over-limit", field });
  });
});

describe("the header", () => {
  it("is refused with another magic", () => {
    expect(refusalOfStream(Buffer.from("5145564c00000003", "hex"))).toEqual({
      code: "stream-bad-magic",
      magic: 0x5145564c,
    });
  });

  it.each([2, 4])("is refused with version %d", (version) => {
    const stream = Buffer.concat([Buffer.from("QEVM"), u32(version)]);
    expect(refusalOfStream(stream)).toEqual({ code: "stream-bad-version", version });
  });
});

describe("records that do not belong before the end of RAM", () => {
  it.each([
    [0x00, "EOF"],
    [0x05, "SUBSECTION"],
    [0x06, "VMDESC"],
    [0x07, "CONFIGURATION"],
    [0x7e, "FOOTER"],
  ])("are refused by name: 0x%s %s", (type, record) => {
    expect(refusalOfStream(Buffer.concat([PREFIX, Buffer.of(type)]))).toEqual({
      code: "stream-unexpected-record",
      record,
    });
  });

  it("are refused when nobody knows their type", () => {
    expect(refusalOfStream(Buffer.concat([PREFIX, Buffer.of(0x09)]))).toEqual({
      code: "stream-unknown-record",
      recordType: 9,
    });
  });

  it("refuses a second start of RAM", () => {
    expect(refusalOfStream(Buffer.concat([PREFIX, START]))).toEqual({
      code: "stream-unexpected-record",
      record: "START of ram",
    });
  });

  it("refuses a part of a section that was not announced", () => {
    const stream = Buffer.concat([PREFIX, Buffer.of(0x02), u32(ID + 1)]);
    expect(refusalOfStream(stream)).toEqual({ code: "stream-unknown-section", sectionId: ID + 1 });
    const early = Buffer.concat([NAIVE_HEADER, Buffer.of(0x03), u32(ID)]);
    expect(refusalOfStream(early)).toEqual({ code: "stream-unknown-section", sectionId: ID });
  });

  it.each([0x01, 0x04])("refuses a section of another device by its name: type %d", (type) => {
    const section = naiveSectionHead(3, "dirty-bitmap", 1);
    section[0] = type;
    expect(refusalOfStream(Buffer.concat([NAIVE_HEADER, section]))).toEqual({
      code: "stream-unsupported-section",
      idstr: "dirty-bitmap",
      instanceId: 0,
    });
  });

  it("refuses a footer that is missing or of another section", () => {
    const body = Buffer.concat([PREFIX, Buffer.of(0x02), u32(ID), NAIVE_EOS]);
    expect(refusalOfStream(Buffer.concat([body, naiveFooter(ID + 1)]))).toEqual({
      code: "stream-bad-footer",
      expected: ID,
      found: ID + 1,
    });
    expect(refusalOfStream(Buffer.concat([body, naiveSection(0x02, ID, [])]))).toMatchObject({
      code: "stream-bad-footer",
    });
  });
});
