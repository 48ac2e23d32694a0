import { beforeEach, expect, it } from "vitest";
import { ManualClock } from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import { RamSender } from "./ram-sender.ts";

const { PAGE_BYTES } = limits;
const PAGES = 16;
const BLOCKS = [
  { name: "pc.ram", lengthBytes: 12 * PAGE_BYTES },
  { name: "pc.rom", lengthBytes: 4 * PAGE_BYTES },
];

let sender: RamSender;

beforeEach(() => {
  sender = new RamSender({
    out: { enqueue: () => undefined },
    clock: new ManualClock(),
    hashSeed: "00112233445566ff",
    onRamSent: () => undefined,
  });
});

/** One pass of QEMU: each `[page, content]` once, content 0 as a zero page. */
function pass(...pages: readonly (readonly [number, number])[]): void {
  for (const [page, content] of pages) {
    if (content === 0) sender.zeroPage(0, page);
    else sender.page(0, page, Buffer.alloc(PAGE_BYTES, `content ${content} `), 0);
  }
}

function letterOf(page: number): string | undefined {
  return sender.map(PAGES)?.cells[page];
}

it("there is no map before RAM is announced", () => {
  expect(sender.map(PAGES)).toBe(null);
});

it("the map tells of the first pass what has come, and what of it is zero", () => {
  sender.ramStart({ blocks: BLOCKS });
  pass([0, 7], [1, 0], [3, 8]);
  sender.page(1, 0, Buffer.alloc(PAGE_BYTES, 1), 0);
  expect(sender.map(PAGES)).toEqual({ totalBytes: PAGES * PAGE_BYTES, cells: "szwswwwwwwwwswww" });
});

it("dirty is what came again in this pass or the last, hot is what keeps coming", () => {
  sender.ramStart({ blocks: BLOCKS });
  sender.setHeldBytesMax(0);
  pass([0, 1], [1, 1]);
  pass([0, 2]);
  expect([letterOf(0), letterOf(1)]).toEqual(["d", "s"]);
  pass([0, 3], [1, 2]);
  expect([letterOf(0), letterOf(1)]).toEqual(["h", "d"]);
});

it("what is held shows as that", () => {
  sender.ramStart({ blocks: BLOCKS });
  sender.setHeldBytesMax(PAGE_BYTES);
  for (const content of [1, 2, 3, 4]) pass([0, content]);
  expect(sender.heldBytes).toBe(PAGE_BYTES);
  expect(letterOf(0)).toBe("k");
});
