import { describe, expect, test } from "vitest";
import { blockBytesFor } from "./block-size.ts";

const KIB = 1024;
const GIB = 1024 ** 3;
const TIB = 1024 ** 4;

describe("the block size of a disk", () => {
  test("is 64 KiB up to 64 GiB", () => {
    for (const sizeBytes of [512, GIB, 64 * GIB]) expect(blockBytesFor(sizeBytes)).toBe(64 * KIB);
  });

  test("doubles with the disk, up to 1 MiB", () => {
    expect(blockBytesFor(64 * GIB + 512)).toBe(128 * KIB);
    expect(blockBytesFor(128 * GIB)).toBe(128 * KIB);
    expect(blockBytesFor(200 * GIB)).toBe(256 * KIB);
    expect(blockBytesFor(TIB)).toBe(1024 * KIB);
    expect(blockBytesFor(64 * TIB)).toBe(1024 * KIB);
  });
});
