import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { BlockDevice, Extent } from "./block-device.ts";

/** Of 1 MiB at least; what it holds does not matter. */
export interface OpenedDevice {
  readonly device: BlockDevice;
  readonly close: () => Promise<void>;
}

const WINDOW_BYTES = 2 ** 20;
const SECTOR_BYTES = 512;
const RUNS = 40;
const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));

/** Registers the tests that every BlockDevice passes. SEED= replays the random one. */
export function blockDeviceContract(name: string, open: () => Promise<OpenedDevice>): void {
  describe(`${name} as a block device`, () => {
    let opened: OpenedDevice | undefined;
    const device = (): BlockDevice => opened!.device;
    beforeEach(async () => {
      opened = await open();
      await device().writeZeroes(0, device().sizeBytes, { mayPunch: true });
    });
    afterEach(async () => {
      // Nothing is there to be closed where the opening failed.
      await opened?.close();
      opened = undefined;
    });
    registerRequestTests(device);
    registerExtentTests(device);
    registerTwinTest(device);
  });
}

function registerRequestTests(device: () => BlockDevice): void {
  it("returns what was written, at its beginning, at its end, and at odd places", async () => {
    const { sizeBytes } = device();
    for (const [offset, length] of [
      [0, 4096],
      [sizeBytes - 4096, 4096],
      [sizeBytes - 1, 1],
      [12_345, 70_001],
      [65_535, 2],
    ] as const) {
      const data = pattern(length, offset);
      await device().write(offset, data);
      expect((await device().read(offset, length)).equals(data), `at ${offset}`).toBe(true);
    }
  });

  it("reads into a buffer and fills it", async () => {
    const data = pattern(10_000, 7);
    await device().write(1000, data);
    const whole = Buffer.alloc(10_010, 0xee);
    await device().readInto(1000, whole.subarray(5, 10_005));
    expect(whole.subarray(5, 10_005).equals(data)).toBe(true);
    expect([...whole.subarray(0, 5), ...whole.subarray(10_005)]).toEqual(Array(10).fill(0xee));
  });

  it("returns buffers that later requests leave alone", async () => {
    const first = await device().read(0, SECTOR_BYTES);
    await device().write(0, pattern(SECTOR_BYTES, 1));
    await device().read(0, SECTOR_BYTES);
    expect(first.equals(Buffer.alloc(SECTOR_BYTES))).toBe(true);
  });

  for (const mayPunch of [true, false]) {
    it(`zeroes what it is told to and not a byte beside it (mayPunch: ${mayPunch})`, async () => {
      for (const [offset, length] of [
        [65_536, 131_072],
        [65_537, 3],
        [100_001, 200_003],
        [0, WINDOW_BYTES],
      ] as const) {
        const data = pattern(WINDOW_BYTES, offset);
        await device().write(0, data);
        await device().writeZeroes(offset, length, { mayPunch });
        data.fill(0, offset, offset + length);
        const read = await device().read(0, WINDOW_BYTES);
        expect(read.equals(data), `${length} bytes at ${offset}`).toBe(true);
      }
    });
  }

  it("trims without touching what lies beside", async () => {
    const data = pattern(WINDOW_BYTES, 3);
    await device().write(0, data);
    await device().trim(100_001, 300_000);
    const read = await device().read(0, WINDOW_BYTES);
    expect(read.subarray(0, 100_001).equals(data.subarray(0, 100_001))).toBe(true);
    expect(read.subarray(400_001).equals(data.subarray(400_001))).toBe(true);
  });

  it("carries out requests that are under way at once", async () => {
    const pieces = Array.from({ length: 64 }, (_, index) => pattern(16_384, index));
    await Promise.all(pieces.map((data, index) => device().write(index * 16_384, data)));
    const read = await Promise.all(pieces.map((_, index) => device().read(index * 16_384, 16_384)));
    expect(Buffer.concat(read).equals(Buffer.concat(pieces))).toBe(true);
  });

  it("flushes, also several times at once and with nothing written", async () => {
    await device().flush();
    await device().write(0, pattern(4096, 1));
    await Promise.all([device().flush(), device().flush(), device().flush()]);
  });
}

function registerExtentTests(device: () => BlockDevice): void {
  it("tells of extents in order, without gaps, from where it was asked on", async () => {
    await device().write(200_000, pattern(100_000, 1));
    await device().write(600_000, pattern(1, 1));
    for (const [offset, length] of [
      [0, device().sizeBytes],
      [1, 300_000],
      [250_000, 1],
      [300_000, 1000],
    ] as const) {
      const extents = await allExtents(device(), offset, length);
      expect(extents.length).toBeGreaterThan(0);
    }
  });

  it("calls nothing a zero extent that was written to or that reads as something else", async () => {
    const data = Buffer.alloc(WINDOW_BYTES);
    for (const offset of [0, 131_072, 400_001, WINDOW_BYTES - 1]) {
      const written = pattern(Math.min(5000, WINDOW_BYTES - offset), offset);
      written.copy(data, offset);
      await device().write(offset, written);
    }
    for (const { offset, length, kind } of await allExtents(device(), 0, WINDOW_BYTES)) {
      if (kind === "data") continue;
      const range = data.subarray(offset, offset + length);
      expect(range.equals(Buffer.alloc(length)), `${length} bytes at ${offset}`).toBe(true);
    }
  });
}

function registerTwinTest(device: () => BlockDevice): void {
  it("stays equal to a plain buffer over random requests", async () => {
    const property = fc.asyncProperty(fc.array(anyRequest, { maxLength: 40 }), async (requests) => {
      await device().writeZeroes(0, WINDOW_BYTES, { mayPunch: true });
      const twin = new Twin();
      for (const request of requests) {
        await carryOut(device(), request);
        twin.carryOut(request);
      }
      twin.expectEqual(await device().read(0, WINDOW_BYTES));
      for (const extent of await allExtents(device(), 0, WINDOW_BYTES)) {
        if (extent.kind === "zero") twin.expectZeroOrTrimmed(extent);
      }
    });
    await fc.assert(property, { seed, numRuns: RUNS });
  });
}

type Request = {
  readonly kind: "write" | "zero" | "punch" | "trim" | "flush";
  readonly offset: number;
  readonly length: number;
  readonly salt: number;
};

const anyRequest: fc.Arbitrary<Request> = fc
  .record({
    kind: fc.constantFrom("write", "zero", "punch", "trim", "flush"),
    unit: fc.constantFrom(1, SECTOR_BYTES, 4096, 65_536),
    from: fc.double({ min: 0, max: 1, noNaN: true }),
    units: fc.integer({ min: 1, max: 40 }),
    salt: fc.nat(255),
  })
  .map(({ kind, unit, from, units, salt }) => {
    const offset = Math.min(Math.floor((from * WINDOW_BYTES) / unit) * unit, WINDOW_BYTES - unit);
    return { kind, offset, length: Math.min(units * unit, WINDOW_BYTES - offset), salt };
  });

async function carryOut(device: BlockDevice, request: Request): Promise<void> {
  const { kind, offset, length, salt } = request;
  if (kind === "flush") await device.flush();
  else if (kind === "trim") await device.trim(offset, length);
  else if (kind === "write") await device.write(offset, pattern(length, salt));
  else await device.writeZeroes(offset, length, { mayPunch: kind === "punch" });
}

/** What a disk holds, the obvious way. What was trimmed may be anything until it is written. */
class Twin {
  readonly #content = Buffer.alloc(WINDOW_BYTES);
  readonly #isKnown = Buffer.alloc(WINDOW_BYTES, 1);

  carryOut({ kind, offset, length, salt }: Request): void {
    if (kind === "flush") return;
    const end = offset + length;
    this.#isKnown.fill(kind === "trim" ? 0 : 1, offset, end);
    if (kind === "write") pattern(length, salt).copy(this.#content, offset);
    else this.#content.fill(0, offset, end);
  }

  expectEqual(read: Buffer): void {
    for (let i = 0; i < WINDOW_BYTES; i++) {
      if (this.#isKnown[i] !== 0 && read[i] !== this.#content[i]) {
        expect.fail(`byte ${i} is ${read[i]} instead of ${this.#content[i]}`);
      }
    }
  }

  expectZeroOrTrimmed({ offset, length }: Extent): void {
    for (let i = offset; i < offset + length; i++) {
      if (this.#isKnown[i] !== 0 && this.#content[i] !== 0) {
        expect.fail(`byte ${i} is in a zero extent and holds ${this.#content[i]}`);
      }
    }
  }
}

/** Asks until the whole range is covered, and checks that it is, once. */
async function allExtents(device: BlockDevice, offset: number, length: number): Promise<Extent[]> {
  const all: Extent[] = [];
  let position = offset;
  while (position < offset + length) {
    const extents = await device.extents(position, offset + length - position);
    expect(extents.length).toBeGreaterThan(0);
    for (const extent of extents) {
      expect(extent.offset).toBe(position);
      expect(extent.length).toBeGreaterThan(0);
      position += extent.length;
    }
    expect(position).toBeLessThanOrEqual(offset + length);
    all.push(...extents);
  }
  return all;
}

/** Bytes that are never zero and differ with the salt. */
function pattern(length: number, salt: number): Buffer {
  const data = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) data[i] = ((i * 31 + salt * 7 + (i >>> 8)) % 255) + 1;
  return data;
}
