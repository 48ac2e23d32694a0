import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PageSet } from "./page-set.ts";
import { decodeStoreIndex, encodeStoreIndex, type StoreIndex } from "./store-index.ts";

const seed = Number(process.env["SEED"] ?? Math.trunc(Math.random() * 2 ** 31));
const blocks = [
  { name: "pc.ram", lengthBytes: 4096 * 200 },
  { name: "rom", lengthBytes: 4096 * 2 },
];

function indexOf(stored: readonly number[], zeros: readonly number[]): StoreIndex {
  const index = { migrationId: "m1", epoch: 3, blocks };
  const pages = new PageSet(blocks);
  const zeroPages = new PageSet(blocks);
  for (const page of stored) pages.add(0, page);
  for (const page of zeros) zeroPages.add(0, page);
  return { ...index, pages, zeros: zeroPages };
}

const pagesOf = (set: PageSet): number[] =>
  [...set.runs(1)].map(({ block, first }) => block * 1000 + first);

describe("the index of a store of pages", () => {
  it(`tells what was put into it (seed ${seed})`, () => {
    const some = fc.uniqueArray(fc.nat(199), { maxLength: 80 });
    fc.assert(
      fc.property(some, some, (stored, zeros) => {
        const {
          pages,
          zeros: zeroPages,
          ...about
        } = decodeStoreIndex(encodeStoreIndex(indexOf(stored, zeros)));
        expect(about).toEqual({ migrationId: "m1", epoch: 3, blocks });
        expect(pagesOf(pages)).toEqual([...stored].sort((a, b) => a - b));
        // A page that was dropped is no zero page of the store either.
        const kept = zeros.filter((page) => stored.includes(page));
        expect(pagesOf(zeroPages)).toEqual(kept.sort((a, b) => a - b));
      }),
      { seed },
    );
  });

  it("is refused when it is cut off anywhere, or has bytes behind it", () => {
    const whole = encodeStoreIndex(indexOf([1, 2, 3, 9], [2]));
    for (let length = 0; length < whole.length; length++) {
      expect(() => decodeStoreIndex(whole.subarray(0, length))).toThrow("not usable");
    }
    expect(() => decodeStoreIndex(Buffer.concat([whole, Buffer.alloc(1)]))).toThrow("not usable");
  });

  it("is refused when any byte of it is another", () => {
    const whole = encodeStoreIndex(indexOf([1, 2, 3, 9], [2]));
    for (let at = 0; at < whole.length; at++) {
      const broken = Buffer.from(whole);
      broken[at]! ^= 0x41;
      expect(() => decodeStoreIndex(broken)).toThrow("not usable");
    }
  });
});
