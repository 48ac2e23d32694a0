import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeMark, encodeMark, readMarkBytes, type MarkContent } from "./mark-codec.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));

const content: MarkContent = {
  imageBytes: 10 * 65_536 + 1,
  blockBytes: 65_536,
  migrationId: "1b4e28ba-2fa1-41d2-883f-0016d3cca427",
  epoch: 2 ** 33 + 5,
  state: "filling",
  bitmap: Uint8Array.of(0b1000_0001, 0b0000_0110),
};

const GOLDEN =
  "766d66657272794d" + // magic
  "00000001" + // version
  "00000001" + // state
  "00000000000a0001" + // imageBytes
  "0000000200000005" + // epoch
  "00010000" + // blockBytes
  "31623465323862612d326661312d343164322d383833662d303031366433636361343237" +
  "00".repeat(28) + // migrationId
  "8106"; // bitmap

describe("encodeMark and decodeMark", () => {
  it("write and read the documented bytes", () => {
    const mark = encodeMark(content);
    expect(mark.subarray(0, -4).toString("hex")).toBe(GOLDEN);
    // Of the bytes above, by another implementation of CRC32C.
    expect(mark.subarray(-4).toString("hex")).toBe("627a1eb8");
    expect(decodeMark(mark)).toEqual({ ...content, bitmap: Buffer.from(content.bitmap) });
    expect(readMarkBytes(mark)).toBe(mark.length);
  });

  it("carry any content", () => {
    const anyContent = fc
      .record({
        imageBytes: fc.integer({ min: 1, max: 2 ** 40 }),
        blockBytes: fc.constantFrom(2 ** 32 - 1, 2 ** 31, 2 ** 30 + 1),
        migrationId: fc.stringMatching(/^[0-9a-zA-Z-]{1,64}$/),
        epoch: fc.maxSafeNat(),
        isWhole: fc.boolean(),
        random: fc.infiniteStream(fc.nat(255)),
      })
      .map(({ isWhole, random, ...subject }): MarkContent => {
        const blocks = Math.ceil(subject.imageBytes / subject.blockBytes);
        const bitmap = new Uint8Array(Math.ceil(blocks / 8));
        for (let block = 0; block < blocks; block++) {
          const isSet = isWhole || Number(random.next().value) % 2 === 1;
          if (isSet) bitmap[block >>> 3]! |= 1 << (block & 7);
        }
        return { ...subject, state: isWhole ? "whole" : "filling", bitmap };
      });
    fc.assert(
      fc.property(anyContent, (any) => {
        const decoded = decodeMark(encodeMark(any))!;
        expect({ ...decoded, bitmap: Uint8Array.from(decoded.bitmap) }).toEqual(any);
      }),
      { seed },
    );
  });

  it("notice every truncation, every addition and every flipped bit", () => {
    const mark = encodeMark(content);
    for (let length = 0; length < mark.length; length++) {
      expect(decodeMark(mark.subarray(0, length)), `${length} bytes`).toBeNull();
    }
    expect(decodeMark(Buffer.concat([mark, Buffer.alloc(1)]))).toBeNull();
    for (let bit = 0; bit < mark.length * 8; bit++) {
      mark[bit >>> 3]! ^= 1 << (bit & 7);
      expect(decodeMark(mark), `bit ${bit}`).toBeNull();
      mark[bit >>> 3]! ^= 1 << (bit & 7);
    }
    for (let at = 0; at < mark.length; at++) {
      mark[at]! ^= 0xff;
      expect(decodeMark(mark), `byte ${at}`).toBeNull();
      mark[at]! ^= 0xff;
    }
    expect(decodeMark(mark)).not.toBeNull();
  });

  it("allocate nothing for sizes beyond the limit", () => {
    const header = encodeMark(content).subarray(0, 100);
    header.writeBigUInt64BE(2n ** 50n, 16);
    expect(readMarkBytes(header)).toBeNull();
    header.writeBigUInt64BE(2n ** 64n - 1n, 16);
    expect(readMarkBytes(header)).toBeNull();
    header.writeBigUInt64BE(0n, 16);
    expect(readMarkBytes(header)).toBeNull();
    header.writeBigUInt64BE(65_536n, 16);
    header.writeUInt32BE(0, 32);
    expect(readMarkBytes(header)).toBeNull();
  });

  it("do not write what would not be read", () => {
    for (const wrong of [
      { bitmap: Uint8Array.of(1) },
      { bitmap: Uint8Array.of(1, 2, 3) },
      { bitmap: Uint8Array.of(0, 0b1000_0000) },
      { state: "whole" },
      { migrationId: "" },
      { migrationId: "x".repeat(65) },
      { migrationId: "a\0b" },
      { imageBytes: 0 },
      { blockBytes: 0 },
      { blockBytes: 65_536.5 },
      { blockBytes: 2 ** 32, bitmap: Uint8Array.of(1) },
      { epoch: -1 },
      { epoch: 2 ** 53 },
    ] as const) {
      expect(() => encodeMark({ ...content, ...wrong })).toThrow("invariant broken");
    }
  });

  it("say whole only of an image that has all its blocks", () => {
    const bitmap = Uint8Array.of(0xff, 0b0000_0111);
    expect(decodeMark(encodeMark({ ...content, state: "whole", bitmap }))?.state).toBe("whole");
  });
});
