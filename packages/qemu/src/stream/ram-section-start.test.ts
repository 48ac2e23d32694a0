import { describe, expect, it } from "vitest";

import {
  NAIVE_EOS,
  NAIVE_HEADER,
  naiveCommand,
  naiveFooter,
  naivePage,
  naiveRamStart,
  naiveSection,
  naiveSectionHead,
  str8,
  u64,
} from "./naive-stream.ts";
import { recordStream, refusalOfStream } from "./stream-recorder.ts";

const ID = 7;
const DEVICES = Buffer.from("0400000003056465763000000000", "hex");

describe("the start of RAM", () => {
  const start = (version: number, list: Buffer, command = Buffer.alloc(0)): Buffer =>
    Buffer.concat([
      NAIVE_HEADER,
      command,
      naiveSectionHead(ID, "ram", version),
      list,
      NAIVE_EOS,
      naiveFooter(ID),
    ]);
  const list = (total: bigint, ...blocks: readonly [string, bigint][]): Buffer =>
    Buffer.concat([
      u64(total | 4n),
      ...blocks.map(([name, bytes]) => Buffer.concat([str8(name), u64(bytes)])),
    ]);
  const advise = (summary: bigint): Buffer =>
    naiveCommand(3, Buffer.concat([u64(summary), u64(4096n)]));

  it("is refused in another version", () => {
    expect(refusalOfStream(start(3, Buffer.alloc(0)))).toEqual({
      code: "stream-ram-version",
      version: 3,
    });
  });

  it.each([
    ["without a list", NAIVE_EOS, "it is missing"],
    ["with an empty list", list(0n), "it is missing"],
    ["with pages instead", naivePage({ block: "a", page: 0, seed: null }), "it is missing"],
    ["with an empty name", list(8192n, ["", 4096n], ["b", 4096n]), "a name is empty"],
    ["with a name twice", list(8192n, ["a", 4096n], ["a", 4096n]), "a comes twice"],
    [
      "with a block longer than the total",
      list(4096n, ["a", 8192n]),
      "a is longer than what is left of the total",
    ],
    [
      "with a block of half a page",
      list(4096n, ["a", 2048n], ["b", 2048n]),
      "a is not a whole number of pages",
    ],
    [
      "with something behind the list",
      Buffer.concat([list(4096n, ["a", 4096n]), u64(0x200n)]),
      "something other than EOS follows it",
    ],
    [
      "with a host page size out of nowhere",
      Buffer.concat([list(4096n, ["a", 4096n]), u64(1n << 21n)]),
      "host pages of 2097152 bytes were not announced",
    ],
  ])("is refused %s", (_what, bytes, reason) => {
    expect(refusalOfStream(start(4, bytes))).toEqual({ code: "stream-bad-block-list", reason });
  });

  it("is held to a number of blocks and to a size", () => {
    const many = Array.from({ length: 257 }, (_, index): [string, bigint] => [`b${index}`, 4096n]);
    const atLimit = list(256n * 4096n, ...many.slice(0, 256));
    expect(refusalOfStream(start(4, atLimit))).toMatchObject({ code: "stream-truncated" });
    expect(refusalOfStream(start(4, list(257n * 4096n, ...many)))).toEqual({
      code: "stream-over-limit",
      field: "block count",
      value: 257,
      limit: 256,
    });
    expect(refusalOfStream(start(4, list(2n ** 50n + 4096n)))).toMatchObject({
      code: "stream-over-limit",
      field: "RAM bytes",
    });
    expect(
      refusalOfStream(start(4, list(8192n, ["a", 8192n])), { ramBytesMax: 4096 }),
    ).toMatchObject({
      code: "stream-over-limit",
    });
  });

  it("takes names of 255 bytes, and keeps every byte of them", () => {
    const name = Array.from({ length: 255 }, (_, at) => String.fromCharCode(at + 1)).join("");
    const stream = Buffer.concat([
      start(4, list(4096n, [name, 4096n])),
      naiveSection(0x03, ID, [{ block: name, page: 0, seed: null }]),
      DEVICES,
    ]);
    const { events } = recordStream([stream]);
    expect(JSON.parse(String(events[1]?.[2]))).toEqual([{ name, lengthBytes: 4096 }]);
    expect(events[3]).toEqual(["zero-page", 0, 0]);
  });

  it.each(["first", "last"])("finds the host page size of a %s block in huge pages", (which) => {
    const huge = { name: "m0", pageCount: 512, hostPageBytes: 2 ** 21 };
    const small = { name: "pc.rom", pageCount: 32 };
    const blocks = which === "first" ? [huge, small] : [small, huge];
    const stream = Buffer.concat([
      NAIVE_HEADER,
      advise(BigInt(2 ** 21 + 4096)),
      naiveRamStart(ID, blocks),
      naiveSection(0x03, ID, []),
      DEVICES,
    ]);
    const found = recordStream([stream]).events.find(([kind]) => kind === "ram-start");
    const described = [
      { name: "m0", lengthBytes: 2 ** 21, hostPageBytes: 2 ** 21 },
      { name: "pc.rom", lengthBytes: 2 ** 17 },
    ];
    expect(JSON.parse(String(found?.[2]))).toEqual(
      which === "first" ? described : described.reverse(),
    );
  });

  it("passes on a list of thousands of bytes as it was", () => {
    const blocks = Array.from({ length: 256 }, (_, index) => ({
      name: String(index).padStart(200, "x"),
      pageCount: 1,
    }));
    const bytes = naiveRamStart(ID, blocks);
    const stream = Buffer.concat([NAIVE_HEADER, bytes, naiveSection(0x03, ID, []), DEVICES]);
    for (const cut of [100, 4096, 4097, 20_000]) {
      const { events } = recordStream([stream.subarray(0, cut), stream.subarray(cut)]);
      expect(events[0]).toEqual(["verbatim", Buffer.concat([NAIVE_HEADER, bytes]).toString("hex")]);
    }
  });

  it.each([
    [2 ** 21, 2n ** 30n + 4096n],
    [4096, 4096n],
    [12288, 12288n],
  ])("refuses a host page size of %d where %d was announced", (hostPageBytes, summary) => {
    const blocks = [{ name: "m0", pageCount: 512, hostPageBytes }];
    const bytes = Buffer.concat([NAIVE_HEADER, advise(summary), naiveRamStart(ID, blocks)]);
    expect(refusalOfStream(bytes)).toMatchObject({ code: "stream-bad-block-list" });
  });
});
