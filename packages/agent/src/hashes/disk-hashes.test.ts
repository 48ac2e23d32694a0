import { createHash } from "node:crypto";
import { InvariantError } from "@vmferry/core";
import { xxh64 } from "@node-rs/xxhash";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DiskHashes } from "./disk-hashes.ts";

const SEED_HEX = "00112233445566ff";
const UNIT_BYTES = 4096;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

function diskOf(sizeBytes: number, unitBytes = UNIT_BYTES, seedHex = SEED_HEX): DiskHashes {
  return new DiskHashes({ sizeBytes, unitBytes, seedHex });
}

function sha256(...parts: readonly (string | Buffer)[]): Buffer {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/** The digest as docs/protocol.md describes it, from what is on the disk. */
function naiveDigest(content: Buffer, unitBytes = UNIT_BYTES): string {
  const units: Buffer[] = [];
  for (let at = 0; at < content.length; at += unitBytes) {
    const hash = xxh64(content.subarray(at, at + unitBytes), BigInt(`0x${SEED_HEX}`));
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(hash === 0n ? 1n : hash);
    units.push(bytes);
  }
  const chunks: Buffer[] = [];
  for (let first = 0; first < units.length; first += 8192) {
    chunks.push(sha256(...units.slice(first, first + 8192)));
  }
  return sha256(`${content.length}:${unitBytes};`, ...chunks).toString("hex");
}

describe("units", () => {
  test.each([
    [4096, 1, 4096],
    [4097, 2, 1],
    [8192, 2, 4096],
    [8192 + 512, 3, 512],
    [512, 1, 512],
  ])("of %i bytes are %i, the last one of %i bytes", (sizeBytes, units, lastBytes) => {
    const disk = diskOf(sizeBytes);
    expect(disk.units).toBe(units);
    expect(disk.lengthOf(units - 1)).toBe(lastBytes);
    for (let unit = 0; unit < units - 1; unit++) expect(disk.lengthOf(unit)).toBe(4096);
  });

  test("are zero in the beginning, as a new image is", () => {
    for (const sizeBytes of [512, 4096, 3 * 4096 + 512]) {
      const disk = diskOf(sizeBytes);
      expect(disk.openCount).toBe(0);
      for (let unit = 0; unit < disk.units; unit++) {
        expect(disk.holds(unit, disk.hash(Buffer.alloc(disk.lengthOf(unit))))).toBe(true);
      }
      expect(disk.digest()).toBe(naiveDigest(Buffer.alloc(sizeBytes)));
    }
  });

  test("that are zero are told by their length: the last one has a hash of its own", () => {
    const disk = diskOf(4096 + 512);
    const [whole, short] = [4096, 512].map((bytes) => disk.hash(Buffer.alloc(bytes))) as [
      bigint,
      bigint,
    ];
    expect([disk.holds(0, whole), disk.holds(0, short)]).toEqual([true, false]);
    expect([disk.holds(1, whole), disk.holds(1, short)]).toEqual([false, true]);
  });
});

describe("a unit", () => {
  test("holds what it was set to", () => {
    const disk = diskOf(3 * 4096);
    const hash = disk.hash(Buffer.alloc(4096, "content"));
    disk.set(1, hash);
    expect([0, 1, 2].map((unit) => disk.holds(unit, hash))).toEqual([false, true, false]);
    disk.setZero(1, 1);
    expect(disk.holds(1, hash)).toBe(false);
    expect(disk.holds(1, disk.hash(Buffer.alloc(4096)))).toBe(true);
  });

  test("that is open holds nothing that is known, not even what it held", () => {
    const disk = diskOf(3 * 4096);
    const hash = disk.hash(Buffer.alloc(4096, "content"));
    disk.set(1, hash);
    disk.open(1);
    expect(disk.isOpen(1)).toBe(true);
    expect(disk.holds(1, hash)).toBe(false);
    disk.set(1, hash);
    expect(disk.isOpen(1)).toBe(false);
    expect(disk.holds(1, hash)).toBe(true);
  });

  test("counts as open once, however often it was opened or closed", () => {
    const disk = diskOf(10 * 4096);
    disk.open(3);
    disk.open(3);
    disk.open(7);
    expect(disk.openCount).toBe(2);
    disk.set(3, 1n);
    disk.set(3, 2n);
    disk.set(4, 2n);
    expect(disk.openCount).toBe(1);
    disk.setZero(0, 7);
    expect(disk.openCount).toBe(1);
    disk.setZero(7, 3);
    disk.setZero(0, 10);
    expect(disk.openCount).toBe(0);
  });

  test("is closed by zeros over a part of the disk, and its neighbours are not", () => {
    const disk = diskOf(10 * 4096);
    for (let unit = 0; unit < 10; unit++) disk.open(unit);
    disk.setZero(4, 3);
    const open = Array.from({ length: 10 }, (_, unit) => (disk.isOpen(unit) ? unit : null));
    expect(open.filter((unit) => unit !== null)).toEqual([0, 1, 2, 3, 7, 8, 9]);
    expect(disk.openCount).toBe(7);
    disk.setZero(9, 0);
    expect(disk.isOpen(9)).toBe(true);
  });
});

describe("the next open unit", () => {
  const always = (): boolean => true;

  function next(disk: DiskHashes, times: number, ready = always): (number | null)[] {
    return Array.from({ length: times }, () => disk.nextOpen(ready));
  }

  test("is none while none is open", () => {
    const disk = diskOf(5 * 4096);
    let asked = 0;
    expect(disk.nextOpen(() => ++asked > 0)).toBeNull();
    disk.open(2);
    disk.set(2, 1n);
    expect(disk.nextOpen(() => ++asked > 0)).toBeNull();
    expect(asked).toBe(0);
  });

  test("goes round, so that each gets its turn although all of them stay open", () => {
    const disk = diskOf(6 * 4096);
    for (const unit of [1, 4, 5]) disk.open(unit);
    expect(next(disk, 7)).toEqual([1, 4, 5, 1, 4, 5, 1]);
  });

  test("goes on behind the last one, also for what is opened meanwhile", () => {
    const disk = diskOf(6 * 4096);
    disk.open(3);
    expect(next(disk, 1)).toEqual([3]);
    disk.open(2);
    disk.open(4);
    expect(next(disk, 4)).toEqual([4, 2, 3, 4]);
  });

  test("is one that is ready", () => {
    const disk = diskOf(6 * 4096);
    for (const unit of [0, 1, 2, 5]) disk.open(unit);
    expect(next(disk, 3, ((unit: number) => unit % 2 === 1) as typeof always)).toEqual([1, 5, 1]);
  });

  test("is none when one round finds none that is ready, having asked for each open one once", () => {
    const disk = diskOf(6 * 4096);
    for (const unit of [1, 3, 4]) disk.open(unit);
    expect(next(disk, 2)).toEqual([1, 3]);
    const asked: number[] = [];
    expect(disk.nextOpen((unit) => asked.push(unit) === 0)).toBeNull();
    expect(asked).toEqual([4, 1, 3]);
    expect(next(disk, 3)).toEqual([4, 1, 3]);
  });

  test("is found on a disk of one unit, again and again", () => {
    const disk = diskOf(512);
    disk.open(0);
    expect(next(disk, 2)).toEqual([0, 0]);
  });
});

describe("the digest", () => {
  test("is not given while a unit is open", () => {
    const disk = diskOf(3 * 4096);
    disk.open(2);
    expect(() => disk.digest()).toThrow(InvariantError);
    disk.set(2, disk.hash(Buffer.alloc(4096)));
    expect(disk.digest()).toBe(diskOf(3 * 4096).digest());
  });

  test("depends on size and unit size, although the same units are zero", () => {
    const digests = [diskOf(8192), diskOf(8192, 8192), diskOf(8192 + 512), diskOf(4096)];
    expect(new Set(digests.map((disk) => disk.digest())).size).toBe(4);
  });

  test("depends on the seed", () => {
    expect(diskOf(8192, 4096, "f".repeat(16)).digest()).not.toBe(diskOf(8192).digest());
  });

  test.each([65_536, 262_144])("covers units of %i bytes and a shorter last one", (unitBytes) => {
    const content = Buffer.alloc(3 * unitBytes + 512);
    content.fill("vmferry ", unitBytes, unitBytes + 700);
    content[content.length - 1] = 1;
    const disk = diskOf(content.length, unitBytes);
    for (let unit = 0; unit < disk.units; unit++) {
      const start = unit * unitBytes;
      disk.set(unit, disk.hash(content.subarray(start, start + disk.lengthOf(unit))));
    }
    expect(disk.digest()).toBe(naiveDigest(content, unitBytes));
  });

  test("covers more units than one chunk has", () => {
    const content = Buffer.alloc(8193 * 512 + 100);
    content[8192 * 512] = 1;
    const disk = diskOf(content.length, 512);
    disk.set(8192, disk.hash(content.subarray(8192 * 512, 8193 * 512)));
    expect(disk.digest()).toBe(naiveDigest(content, 512));
  });

  test(`is that of the content, however it was written (SEED=${seed})`, async () => {
    const SIZE_BYTES = 40 * 512 + 100;
    const UNITS = 41;
    /** A write at bytes, zeros over units, or units that are read again. */
    const step = fc.oneof(
      fc.record({
        write: fc.nat(SIZE_BYTES - 1),
        length: fc.integer({ min: 1, max: 3000 }),
        fill: fc.nat(2),
      }),
      fc.record({ zeros: fc.nat(UNITS - 1), count: fc.nat(UNITS) }),
      fc.record({ settle: fc.nat(5) }),
      fc.constant("refresh" as const),
    );
    const property = fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const content = Buffer.alloc(SIZE_BYTES);
      const disk = diskOf(SIZE_BYTES, 512);
      const contentOf = (unit: number): Buffer =>
        content.subarray(unit * 512, unit * 512 + disk.lengthOf(unit));
      const settle = (): boolean => {
        const unit = disk.nextOpen(() => true);
        if (unit !== null) disk.set(unit, disk.hash(contentOf(unit)));
        return unit !== null;
      };
      for (const each of steps) {
        if (each === "refresh") await disk.refresh();
        else if ("settle" in each) for (let i = 0; i < each.settle; i++) settle();
        else if ("zeros" in each) {
          const count = Math.min(each.count, UNITS - each.zeros);
          content.fill(0, each.zeros * 512, Math.min(SIZE_BYTES, (each.zeros + count) * 512));
          disk.setZero(each.zeros, count);
        } else {
          const end = Math.min(SIZE_BYTES, each.write + each.length);
          content.fill(each.fill, each.write, end);
          const last = Math.floor((end - 1) / 512);
          for (let unit = Math.floor(each.write / 512); unit <= last; unit++) {
            const start = unit * 512;
            const whole = each.write <= start && start + disk.lengthOf(unit) <= end;
            if (whole) disk.set(unit, disk.hash(contentOf(unit)));
            else disk.open(unit);
          }
        }
        const open = Array.from({ length: UNITS }, (_, unit) => disk.isOpen(unit));
        expect(disk.openCount).toBe(open.filter((isOpen) => isOpen).length);
        for (let unit = 0; unit < UNITS; unit++) {
          expect(disk.holds(unit, disk.hash(contentOf(unit)))).toBe(!open[unit]);
        }
      }
      while (settle());
      expect(disk.digest()).toBe(naiveDigest(content, 512));
    });
    await fc.assert(property, { seed, numRuns: 60 });
  });
});
