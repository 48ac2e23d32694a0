import { PageSet } from "@vmferry/agent";
import { limits } from "@vmferry/protocol";
import type { PageRequest } from "@vmferry/qemu";
import { beforeEach, describe, expect, it } from "vitest";
import { PageRequests, type ReqPages } from "./page-requests.ts";

const { PAGE_BYTES, REQUESTS_MAX } = limits;
const BLOCKS = [
  { name: "pc.ram", lengthBytes: 8000 * PAGE_BYTES },
  { name: "pc.rom", lengthBytes: 4 * PAGE_BYTES },
];

let missing: PageSet;
let requests: PageRequests;
let told: PageRequest[];
let latenciesMs: number[];
let nowMs: number;

beforeEach(() => {
  missing = new PageSet(BLOCKS);
  nowMs = 1000;
  told = [];
  latenciesMs = [];
  requests = new PageRequests({ blocks: BLOCKS, missing, nowMs: () => nowMs });
});

function listen(): void {
  requests.listen({
    onRequest: (request) => told.push(request),
    onPlaced: (latencyMs) => latenciesMs.push(latencyMs),
  });
}

function reqPages(block: string, page: number, lengthBytes = PAGE_BYTES): ReqPages {
  return { type: "req-pages", block, startBytes: page * PAGE_BYTES, lengthBytes };
}

describe("requests of pages", () => {
  it("are told once, until they are placed", () => {
    listen();
    missing.add(1, 3);
    requests.asked(reqPages("pc.rom", 3));
    requests.asked(reqPages("pc.rom", 3));
    const request = { block: 1, firstPage: 3, pageCount: 1 };
    expect(told).toEqual([request]);
    expect(requests.outstanding()).toEqual([request]);
    nowMs += 7;
    requests.placed(1, 3);
    requests.placed(1, 3);
    expect(requests.outstanding()).toEqual([]);
    expect(latenciesMs).toEqual([7]);
  });

  it("are passed over where QEMU has the page by now", () => {
    listen();
    requests.asked(reqPages("pc.ram", 3));
    expect(told).toEqual([]);
  });

  it("wait for somebody who listens", () => {
    missing.add(0, 7999);
    missing.add(1, 0);
    requests.asked(reqPages("pc.ram", 7999));
    requests.asked(reqPages("pc.rom", 0));
    listen();
    expect(told).toEqual([
      { block: 0, firstPage: 7999, pageCount: 1 },
      { block: 1, firstPage: 0, pageCount: 1 },
    ]);
  });

  it("are not kept beyond the limit", () => {
    listen();
    for (let page = 0; page <= REQUESTS_MAX; page++) {
      missing.add(0, page);
      requests.asked(reqPages("pc.ram", page));
    }
    expect(told).toHaveLength(REQUESTS_MAX);
  });

  it.each([
    ["a block that is not there", reqPages("pc.bios", 0)],
    ["a page outside its block", reqPages("pc.rom", 4)],
    ["more than a host page", reqPages("pc.rom", 0, 2 * PAGE_BYTES)],
  ])("are refused for %s", (_what, message) => {
    expect(() => {
      requests.asked(message);
    }).toThrow();
  });
});
