import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  FrameEncoding,
  FrameKind,
  limits,
  openFrame,
  RunTable,
  sealFrame,
} from "@vmferry/protocol";
import { PageFrame } from "./page-frame.ts";

const { FRAME_BYTES_MAX, FRAME_PAGES_MAX, FRAME_RUNS_MAX, PAGE_BYTES } = limits;
const BLOCK_PAGES = 2 ** 30;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

interface Entry {
  readonly page: number;
  /** Null = a zero page. */
  readonly content: number | null;
}

function content(number: number): Buffer {
  return Buffer.alloc(PAGE_BYTES, `content ${number} `);
}

/** Adds entries until the frame is full; those that went in. */
function fill(frame: PageFrame, entries: readonly Entry[]): Entry[] {
  const added: Entry[] = [];
  for (const entry of entries) {
    if (frame.full) break;
    if (entry.content === null) frame.addZero(entry.page);
    else {
      content(entry.content).copy(frame.nextSlot);
      frame.addData(entry.page);
    }
    added.push(entry);
  }
  return added;
}

/** Seals the frame and reads it as the dest does. */
function readBack(frame: PageFrame): Entry[] {
  const view = frame.finish();
  const { block, runs } = frame;
  const kind = FrameKind.PAGES;
  sealFrame(view, { kind, encoding: FrameEncoding.RAW, pass: 7, sequence: 9, block, runs });
  const header = openFrame(view);
  expect(header).toMatchObject({ kind, pass: 7, sequence: 9, block, runs });
  const table = new RunTable();
  table.open(view, header, BLOCK_PAGES);
  const entries: Entry[] = [];
  let offset = table.dataOffset;
  for (let run = 0; run < table.count; run++) {
    for (let i = 0; i < table.pages(run); i++) {
      const page = table.first(run) + i;
      if (table.zero(run)) entries.push({ page, content: null });
      else {
        const text = view.toString("latin1", offset, offset + PAGE_BYTES);
        entries.push({ page, content: Number(/^content (\d+) /.exec(text)?.[1]) });
        offset += PAGE_BYTES;
      }
    }
  }
  expect(offset).toBe(view.length);
  return entries;
}

describe("a frame of pages", () => {
  test("is read by the dest as it was written", () => {
    const frame = new PageFrame();
    frame.reset(5);
    const entries = [
      { page: 10, content: 1 },
      { page: 11, content: 2 },
      { page: 12, content: null },
      { page: 13, content: null },
      { page: 4, content: 3 },
    ];
    fill(frame, entries);
    expect([frame.runs, frame.dataPages, frame.block]).toEqual([3, 3, 5]);
    expect(readBack(frame)).toEqual(entries);
  });

  test("makes one run of pages that follow each other and are of one kind", () => {
    const frame = new PageFrame();
    frame.reset(0);
    fill(frame, [
      { page: 0, content: 0 },
      { page: 1, content: 0 },
      // Not the next one, then the other kind, then backwards.
      { page: 3, content: 0 },
      { page: 4, content: null },
      { page: 3000, content: null },
      { page: 2999, content: null },
    ]);
    expect(frame.runs).toBe(5);
  });

  test("is full with its last data page, and takes no more then", () => {
    const frame = new PageFrame();
    frame.reset(0);
    const pages = Array.from({ length: FRAME_PAGES_MAX + 9 }, (_, page) => ({
      page,
      content: page,
    }));
    expect(fill(frame, pages)).toHaveLength(FRAME_PAGES_MAX);
    expect(frame.full).toBe(true);
    for (const add of ["addData", "addZero"] as const) {
      expect(() => {
        frame[add](1000);
      }).toThrow("a full frame takes no page");
    }
    expect(readBack(frame)).toEqual(pages.slice(0, FRAME_PAGES_MAX));
  });

  test("is full with its last run, although there is room for data", () => {
    const frame = new PageFrame();
    frame.reset(0);
    const scattered = Array.from({ length: 999 }, (_, i) => ({ page: i * 2, content: null }));
    expect(fill(frame, scattered)).toHaveLength(FRAME_RUNS_MAX);
    expect(readBack(frame)).toEqual(scattered.slice(0, FRAME_RUNS_MAX));
  });

  test("takes any number of zero pages in one run", () => {
    const frame = new PageFrame();
    frame.reset(0);
    for (let page = 0; page < 100_000; page++) frame.addZero(page);
    expect([frame.runs, frame.full]).toEqual([1, false]);
    expect(frame.finish()).toHaveLength(limits.FRAME_HEADER_BYTES + limits.RUN_BYTES);
  });

  test("is never larger than what the dest accepts", () => {
    const frame = new PageFrame();
    frame.reset(limits.RAM_BLOCKS_MAX - 1);
    // As many runs as there can be, and as much data.
    const zeros = FRAME_RUNS_MAX - FRAME_PAGES_MAX;
    for (let i = 0; i < zeros; i++) frame.addZero(i * 2);
    for (let i = 0; i < FRAME_PAGES_MAX; i++) frame.addData(10_000 + i * 2);
    expect(frame.full).toBe(true);
    expect(frame.finish().length).toBeLessThanOrEqual(FRAME_BYTES_MAX);
    expect(readBack(frame)).toHaveLength(FRAME_RUNS_MAX);
  });

  test("keeps nothing of what it held before, when it is used again", () => {
    const frame = new PageFrame();
    frame.reset(1);
    fill(frame, [
      { page: 1, content: 1 },
      { page: 9, content: null },
    ]);
    readBack(frame);
    frame.reset(2);
    expect([frame.empty, frame.full, frame.runs, frame.dataPages]).toEqual([true, false, 0, 0]);
    fill(frame, [{ page: 2, content: 3 }]);
    expect(readBack(frame)).toEqual([{ page: 2, content: 3 }]);
    expect(frame.block).toBe(2);
  });

  test(`carries any pages in any order (SEED=${seed})`, () => {
    const frame = new PageFrame();
    const entry = fc.record({
      page: fc.oneof(fc.nat(20), fc.nat(BLOCK_PAGES - 1)),
      content: fc.option(fc.nat(1000), { nil: null }),
    });
    const entries = fc.uniqueArray(entry, { selector: ({ page }) => page, maxLength: 300 });
    const property = fc.property(entries, (plan) => {
      fc.pre(plan.length > 0);
      frame.reset(0);
      const added = fill(frame, plan);
      expect(readBack(frame)).toEqual(added);
    });
    fc.assert(property, { seed, numRuns: 60 });
  });
});
