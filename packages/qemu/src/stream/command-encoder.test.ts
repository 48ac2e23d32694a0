import { InvariantError } from "@vmferry/core";
import { describe, expect, it } from "vitest";

import {
  encodeBitmapRequest,
  encodePackageHeader,
  encodePing,
  encodePostcopyResume,
  encodeRamDiscards,
} from "./command-encoder.ts";
import { NAIVE_ADVISE, NAIVE_HEADER, naivePackageOf, naiveRamStart } from "./naive-stream.ts";
import { decodeRamDiscard } from "./stream-command.ts";
import { StreamDecoder } from "./stream-decoder.ts";
import { StreamRecorder } from "./stream-recorder.ts";

const BLOCK = { name: "pc.ram", lengthBytes: 2 ** 20 };

describe("encoded commands", () => {
  it.each([
    [encodePing(3), "080002000400000003"],
    [encodePackageHeader(0x7f97), "080007000400007f97"],
    [encodeBitmapRequest("pc.ram"), "08000a00070670632e72616d"],
    [encodePostcopyResume(), "0800090000"],
    [
      encodeRamDiscards(BLOCK, [{ firstPage: 5, pageCount: 2 }]),
      "080006001900" + "0670632e72616d" + "00" + "0000000000005000" + "0000000000002000",
    ],
  ])("are golden bytes (%#)", (encoded, hex) => {
    expect(encoded.toString("hex")).toBe(hex);
  });

  it("are understood again by the decoder", () => {
    const ranges = Array.from({ length: 30 }, (_, index) => ({
      firstPage: index * 3,
      pageCount: 2,
    }));
    const nested = naivePackageOf(Buffer.alloc(20, 4));
    const recorder = new StreamRecorder();
    new StreamDecoder(recorder).push(
      Buffer.concat([
        NAIVE_HEADER,
        NAIVE_ADVISE,
        naiveRamStart(1, [{ name: "pc.ram", pageCount: 256 }]),
        encodeRamDiscards(BLOCK, ranges),
        encodePing(2),
        encodePackageHeader(nested.length),
        nested,
      ]),
    );
    const discards = recorder.events.flatMap((event) =>
      event[0] === "command" && event[1] === 6
        ? [decodeRamDiscard(Buffer.from(event[2], "hex")).ranges]
        : [],
    );
    expect(discards.map(({ length }) => length)).toEqual([12, 12, 6]);
    expect(discards.flat()).toEqual(
      ranges.map(({ firstPage, pageCount }) => ({
        startBytes: firstPage * 4096,
        lengthBytes: pageCount * 4096,
      })),
    );
    expect(recorder.events.at(-1)).toEqual(["package-end"]);
  });

  it("are not written for ranges outside of the block", () => {
    for (const range of [
      { firstPage: -1, pageCount: 1 },
      { firstPage: 0, pageCount: 0 },
      { firstPage: 256, pageCount: 1 },
      { firstPage: 255, pageCount: 2 },
    ]) {
      expect(() => encodeRamDiscards(BLOCK, [range])).toThrow(InvariantError);
    }
  });
});
