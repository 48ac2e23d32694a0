import { randomBytes } from "node:crypto";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { unzstdInto, zstdInto } from "./zstd.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
const LIMITS = { windowBytesMax: 1024 * 1024 };

/** Half noise, as most memory is. */
function data(bytes: number): Buffer {
  const half = bytes >>> 1;
  return Buffer.concat([randomBytes(half), Buffer.alloc(bytes - half, "vmferry ")]);
}

describe("compressing", () => {
  it("makes a frame that any zstd reads", async () => {
    const input = data(100_000);
    const output = Buffer.alloc(100_000);
    const bytes = await zstdInto(output, input);
    expect(bytes).toBeLessThan(60_000);
    expect(zstdDecompressSync(output.subarray(0, bytes!)).equals(input)).toBe(true);
  });

  it("says so when the output has no room for it, and writes nothing behind it", async () => {
    const whole = Buffer.alloc(2000, 7);
    expect(await zstdInto(whole.subarray(0, 1000), randomBytes(4096))).toBeNull();
    expect(whole.subarray(1000).equals(Buffer.alloc(1000, 7))).toBe(true);
  });

  it("of many at once gives each its own", async () => {
    const inputs = Array.from({ length: 32 }, () => data(50_000));
    const outputs = await Promise.all(
      inputs.map(async (input) => {
        const output = Buffer.alloc(50_000);
        return output.subarray(0, (await zstdInto(output, input))!);
      }),
    );
    for (const [index, output] of outputs.entries()) {
      expect(zstdDecompressSync(output).equals(inputs[index]!)).toBe(true);
    }
  });
});

describe("decompressing", () => {
  it("fills what it is given", () => {
    const input = data(70_000);
    const output = Buffer.alloc(70_000);
    expect(unzstdInto(output, zstdCompressSync(input), LIMITS)).toBe(true);
    expect(output.equals(input)).toBe(true);
  });

  it("refuses a frame that is longer or shorter than that, and writes nothing behind it", () => {
    const whole = Buffer.alloc(3000, 7);
    const frame = zstdCompressSync(data(2000));
    expect(unzstdInto(whole.subarray(0, 1999), frame, LIMITS)).toBe(false);
    expect(unzstdInto(whole.subarray(0, 2001), frame, LIMITS)).toBe(false);
    expect(whole.subarray(2001).equals(Buffer.alloc(999, 7))).toBe(true);
  });

  it("refuses two frames, and one with something behind it", () => {
    const frame = zstdCompressSync(data(2000));
    const output = Buffer.alloc(4000);
    expect(unzstdInto(output, Buffer.concat([frame, frame]), LIMITS)).toBe(false);
    expect(
      unzstdInto(output.subarray(0, 2000), Buffer.concat([frame, randomBytes(1)]), LIMITS),
    ).toBe(false);
  });

  it("refuses older formats, which some libraries read", () => {
    const frame = zstdCompressSync(Buffer.alloc(100));
    frame[0] = 0x27;
    expect(unzstdInto(Buffer.alloc(100), frame, LIMITS)).toBe(false);
  });

  it("refuses a frame that may be skipped, and nothing at all", () => {
    const skippable = Buffer.from("502a4d180400000001020304", "hex");
    expect(unzstdInto(Buffer.alloc(4), skippable, LIMITS)).toBe(false);
    expect(unzstdInto(Buffer.alloc(4), Buffer.alloc(0), LIMITS)).toBe(false);
  });

  it("is the opposite of compressing after anything that was refused before", async () => {
    const input = data(30_000);
    const frame = Buffer.alloc(30_000);
    const bytes = (await zstdInto(frame, input))!;
    const output = Buffer.alloc(30_000);
    expect(unzstdInto(output, randomBytes(500), LIMITS)).toBe(false);
    expect(unzstdInto(output, frame.subarray(0, bytes - 1), LIMITS)).toBe(false);
    expect(unzstdInto(output, frame.subarray(0, bytes), LIMITS)).toBe(true);
    expect(output.equals(input)).toBe(true);
  });

  it(`stays within what it is given, whatever the frame is (SEED=${seed})`, () => {
    const good = zstdCompressSync(data(4096));
    const place = Buffer.alloc(4096 + 64);
    const property = fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 300 }),
        fc
          .array(fc.record({ at: fc.nat(good.length - 1), byte: fc.nat(255) }), {
            minLength: 1,
            maxLength: 4,
          })
          .map((changes) => {
            const frame = Buffer.from(good);
            for (const { at, byte } of changes) frame[at] = byte;
            return frame;
          }),
        fc.nat(good.length).map((length) => good.subarray(0, length)),
      ),
      fc.nat(4096),
      (frame, room) => {
        place.fill(7, room);
        unzstdInto(place.subarray(0, room), Buffer.from(frame), LIMITS);
        expect(place.subarray(room, room + 64).equals(Buffer.alloc(64, 7))).toBe(true);
      },
    );
    fc.assert(property, { seed, numRuns: 20_000 });
  });
});
