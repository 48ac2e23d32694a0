import { describe, expect, test } from "vitest";
import { HeldPages } from "./held-pages.ts";

const PAGE_BYTES = 4096;

function page(content: number): Buffer {
  return Buffer.alloc(PAGE_BYTES, `content ${content} `);
}

/** Takes everything out, oldest first: [index, content] of each. */
function drain(held: HeldPages): [number, Buffer][] {
  const pages: [number, Buffer][] = [];
  for (let oldest = held.oldest(); oldest !== null; oldest = held.oldest()) {
    const into = Buffer.alloc(PAGE_BYTES);
    held.release(oldest.index, into);
    pages.push([oldest.index, into]);
  }
  return pages;
}

describe("held pages", () => {
  test("come out as they were, from anywhere in the buffer that they came in", () => {
    const held = new HeldPages(4);
    const chunk = Buffer.concat([Buffer.alloc(9, 1), page(5), Buffer.alloc(100, 2)]);
    expect(held.hold(77, chunk, 9, 0)).toBe(true);
    chunk.fill(0);
    expect(held.has(77)).toBe(true);
    expect([held.count, held.bytes]).toEqual([1, PAGE_BYTES]);
    expect(drain(held)).toEqual([[77, page(5)]]);
    expect(held.has(77)).toBe(false);
    expect([held.count, held.bytes]).toEqual([0, 0]);
  });

  test("keep the latest content only, in the place of the one before", () => {
    const held = new HeldPages(4);
    for (let content = 0; content < 10; content++) held.hold(3, page(content), 0, content);
    expect(held.count).toBe(1);
    expect(held.oldest()).toEqual({ index: 3, cameMs: 9 });
    expect(drain(held)).toEqual([[3, page(9)]]);
  });

  test("are refused when the store is full, and what is held stays as it is", () => {
    const held = new HeldPages(2);
    expect(held.hold(0, page(0), 0, 0)).toBe(true);
    expect(held.hold(1, page(1), 0, 0)).toBe(true);
    expect(held.hold(2, page(2), 0, 0)).toBe(false);
    expect(held.has(2)).toBe(false);
    expect(held.count).toBe(2);
    expect(drain(held)).toEqual([
      [0, page(0)],
      [1, page(1)],
    ]);
  });

  test("are renewed when the store is full and holds them already", () => {
    const held = new HeldPages(2);
    held.hold(0, page(0), 0, 0);
    held.hold(1, page(1), 0, 0);
    expect(held.hold(0, page(20), 0, 5)).toBe(true);
    expect(drain(held)).toEqual([
      [1, page(1)],
      [0, page(20)],
    ]);
  });

  test("leave in the order in which they came last", () => {
    const held = new HeldPages(8);
    for (const [nowMs, index] of [5, 6, 7, 5, 8, 6].entries()) held.hold(index, page(0), 0, nowMs);
    expect(held.oldest()).toEqual({ index: 7, cameMs: 2 });
    expect(drain(held).map(([index]) => index)).toEqual([7, 5, 8, 6]);
  });

  test("leave room behind when they are dropped or released, again and again", () => {
    const held = new HeldPages(3);
    for (let round = 0; round < 50; round++) {
      for (let i = 0; i < 3; i++) expect(held.hold(round * 3 + i, page(i), 0, 0)).toBe(true);
      expect(held.hold(9999, page(0), 0, 0)).toBe(false);
      held.drop(round * 3 + 1);
      expect(drain(held)).toEqual([
        [round * 3, page(0)],
        [round * 3 + 2, page(2)],
      ]);
    }
  });

  test("are kept apart over the border of a slab of memory", () => {
    const held = new HeldPages(600);
    for (let i = 0; i < 600; i++) held.hold(i, page(i), 0, i);
    const contents = drain(held);
    expect(contents).toHaveLength(600);
    for (const [index, content] of contents) expect(content.equals(page(index))).toBe(true);
  });

  test("that are not held can be dropped, but not released", () => {
    const held = new HeldPages(1);
    held.drop(4);
    expect(held.oldest()).toBeNull();
    expect(() => {
      held.release(4, Buffer.alloc(PAGE_BYTES));
    }).toThrow("a released page was held");
  });

  test("are refused by a store of no size", () => {
    expect(new HeldPages(0).hold(0, page(0), 0, 0)).toBe(false);
  });
});
