import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { writeDiskImage } from "./disk-image.ts";

const MIB = 2 ** 20;

describe("writeDiskImage", () => {
  let directory = "";
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "vmferry-disk-image-"));
  });
  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  const write = async (...[sizeBytes, content]: [number, object?]): Promise<Buffer> => {
    const path = join(directory, "disk.raw");
    await writeDiskImage(path, sizeBytes, content);
    expect(statSync(path).size).toBe(sizeBytes);
    return readFileSync(path);
  };
  /** For each MiB whether there is data in it. */
  const dataOf = (image: Buffer): boolean[] =>
    Array.from({ length: Math.ceil(image.length / MIB) }, (_, piece) =>
      image.subarray(piece * MIB, (piece + 1) * MIB).some((byte) => byte !== 0),
    );

  it("makes a hole of the size where no content is asked for", async () => {
    const image = await write(3 * MIB + 512);
    expect(image.every((byte) => byte === 0)).toBe(true);
    expect(statSync(join(directory, "disk.raw")).blocks).toBeLessThan(64);
  });

  it("spreads data over the share of it that is to be filled", async () => {
    expect(dataOf(await write(8 * MIB, { fill: 0.25 }))).toEqual([
      ...[false, false, false, true],
      ...[false, false, false, true],
    ]);
    expect(dataOf(await write(2 * MIB + 512, { fill: 1 }))).toEqual([true, true, true]);
  });

  it("writes data that compresses to half and follows from the seed", async () => {
    const image = await write(4 * MIB, { fill: 1, seed: 7 });
    const packed = deflateRawSync(image, { level: 1 }).length / image.length;
    expect(packed).toBeGreaterThan(0.45);
    expect(packed).toBeLessThan(0.6);
    expect((await write(4 * MIB, { fill: 1, seed: 7 })).equals(image)).toBe(true);
    expect((await write(4 * MIB, { fill: 1, seed: 8 })).equals(image)).toBe(false);
  });
});
