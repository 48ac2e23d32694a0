import { ManualClock } from "@vmferry/agent";
import {
  BlockContent,
  decodeBlockQuestion,
  encodeBlockMessage,
  KEPT_RUNS_MAX,
  Urgency,
  type BlockAnswer,
} from "@vmferry/protocol";
import { beforeEach, describe, expect, it } from "vitest";
import { BlockFetcher, type BlockLink } from "./block-fetcher.ts";

const DISK = 2;
let fetcher: BlockFetcher;
let clock: ManualClock;
let arrived: string[];

beforeEach(() => {
  clock = new ManualClock();
  fetcher = new BlockFetcher(clock);
  arrived = [];
  fetcher.join(DISK, {
    arrived: ({ first, count }) => {
      if (first === 66) throw new Error("a lie");
      arrived.push(`${first}+${count}`);
    },
    verdict: (equal) => {
      arrived.push(equal ? "equal" : "different");
    },
  });
});

function newLink(): BlockLink & { readonly sent: string[] } {
  const sent: string[] = [];
  return {
    sent,
    send: (message) => {
      const question = decodeBlockQuestion(message);
      if (question.kind === "ask") {
        const urgency = question.urgency === Urgency.URGENT ? "urgent" : "background";
        sent.push(`${urgency} ${question.first}+${question.count}`);
      } else if (question.kind === "kept") sent.push(`kept ${question.runs.length}`);
      else sent.push(`end ${question.digest.slice(0, 4)}`);
    },
  };
}

function receive(link: BlockLink, answer: BlockAnswer): void {
  fetcher.received(link, encodeBlockMessage(answer));
}

function hole(first: number, count = 1, disk = DISK): BlockAnswer {
  const data = Buffer.alloc(0);
  return { kind: "blocks", disk, content: BlockContent.HOLE, first, count, hash: 0n, data };
}

describe("a block fetcher", () => {
  it("asks in pieces that an ask may have, and gives what comes to the disk", () => {
    const link = newLink();
    fetcher.attach(link);
    fetcher.ask(DISK, { first: 0, count: 130 }, Urgency.BACKGROUND);
    expect(link.sent).toEqual(["background 0+64", "background 64+64", "background 128+2"]);
    receive(link, hole(0, 64));
    expect(arrived).toEqual(["0+64"]);
  });

  it("asks again on the next link for what was not answered, the urgent first", () => {
    const link = newLink();
    fetcher.attach(link);
    fetcher.ask(DISK, { first: 0, count: 4 }, Urgency.BACKGROUND);
    fetcher.ask(DISK, { first: 9, count: 1 }, Urgency.URGENT);
    fetcher.ask(DISK, { first: 2, count: 1 }, Urgency.URGENT);
    receive(link, hole(0));
    fetcher.detach(link);
    fetcher.ask(DISK, { first: 20, count: 1 }, Urgency.URGENT);
    const next = newLink();
    fetcher.attach(next);
    expect(next.sent).toEqual([
      "urgent 2+1",
      "urgent 9+1",
      "urgent 20+1",
      "background 1+1",
      "background 3+1",
    ]);
    // What an old link still brings is nobody's.
    receive(link, hole(9));
    expect(arrived).toEqual(["0+1"]);
    receive(next, hole(20));
    expect(arrived).toEqual(["0+1", "20+1"]);
  });

  it("does not ask again for what came once of two times", () => {
    const link = newLink();
    fetcher.attach(link);
    fetcher.ask(DISK, { first: 5, count: 1 }, Urgency.BACKGROUND);
    fetcher.ask(DISK, { first: 5, count: 1 }, Urgency.URGENT);
    receive(link, hole(5));
    receive(link, hole(5));
    expect(() => {
      receive(link, hole(5));
    }).toThrow("answer to no question");
    fetcher.ask(DISK, { first: 6, count: 1 }, Urgency.BACKGROUND);
    fetcher.ask(DISK, { first: 6, count: 1 }, Urgency.URGENT);
    receive(link, hole(6));
    const next = newLink();
    fetcher.attach(next);
    expect(next.sent).toEqual([]);
  });

  it("refuses answers to nothing, and keeps asking for what a lie was about", () => {
    const link = newLink();
    fetcher.attach(link);
    fetcher.ask(DISK, { first: 66, count: 2 }, Urgency.BACKGROUND);
    for (const lie of [hole(65, 2), hole(67, 2), hole(0)]) {
      expect(() => {
        receive(link, lie);
      }).toThrow("answer to no question");
    }
    expect(() => {
      receive(link, hole(66, 1, 0));
    }).toThrow("disk that is not lazy");
    expect(() => {
      receive(link, { kind: "verdict", disk: DISK, equal: true });
    }).toThrow("has not ended");
    expect(() => {
      receive(link, hole(66));
    }).toThrow("a lie");
    const next = newLink();
    fetcher.attach(next);
    expect(next.sent).toEqual(["background 66+2"]);
    expect(arrived).toEqual([]);
  });

  it("says what the dest has kept until there is a verdict", () => {
    const runs = Array.from({ length: KEPT_RUNS_MAX + 1 }, (_, i) => ({ first: i * 2, count: 1 }));
    fetcher.end(DISK, { kept: runs, digest: "abcd".repeat(16) });
    for (let links = 0; links < 2; links++) {
      const link = newLink();
      fetcher.attach(link);
      expect(link.sent).toEqual([`kept ${KEPT_RUNS_MAX}`, "kept 1", "end abcd"]);
      if (links === 1) receive(link, { kind: "verdict", disk: DISK, equal: true });
    }
    expect(arrived).toEqual(["equal"]);
    const link = newLink();
    fetcher.attach(link);
    expect(link.sent).toEqual([]);
  });

  it("knows since when the guest waits", () => {
    const link = newLink();
    fetcher.attach(link);
    fetcher.ask(DISK, { first: 0, count: 4 }, Urgency.BACKGROUND);
    expect(fetcher.waitingSinceMs(DISK)).toBe(null);
    clock.advance(100);
    fetcher.ask(DISK, { first: 8, count: 1 }, Urgency.URGENT);
    clock.advance(100);
    fetcher.ask(DISK, { first: 9, count: 1 }, Urgency.URGENT);
    expect(fetcher.waitingSinceMs(DISK)).toBe(100);
    receive(link, hole(8));
    expect(fetcher.waitingSinceMs(DISK)).toBe(200);
    receive(link, hole(9));
    expect(fetcher.waitingSinceMs(DISK)).toBe(null);
  });
});
