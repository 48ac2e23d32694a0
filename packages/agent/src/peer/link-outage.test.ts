import { beforeEach, expect, test } from "vitest";
import { limits } from "@vmferry/protocol";
import { ManualClock } from "../events/manual-clock.ts";
import { LinkOutage } from "./link-outage.ts";

const { LINK_LOST_MS_MAX, LINK_LOST_STUNNED_MS_MAX } = limits;

let clock: ManualClock;
let reasons: Error[];
let outage: LinkOutage;

beforeEach(() => {
  clock = new ManualClock();
  reasons = [];
  outage = new LinkOutage(clock, (reason) => reasons.push(reason));
});

test("lasts from the first connection that is lost until all are back", async () => {
  outage.lost("control");
  clock.advance(100);
  outage.lost("bulk 1");
  expect(outage.back("control")).toBe(null);
  expect(outage.lasts).toBe(true);
  clock.advance(200);
  expect(outage.back("bulk 1")).toBe(300);
  expect(outage.lasts).toBe(false);
  await outage.over;
  expect(clock.timerCount).toBe(0);
});

test("is too long after a minute, and each has a minute of its own", () => {
  for (let round = 0; round < 5; round++) {
    outage.lost("control");
    clock.advance(LINK_LOST_MS_MAX - 1);
    outage.back("control");
  }
  expect(reasons).toEqual([]);
  outage.lost("bulk 0");
  clock.advance(LINK_LOST_MS_MAX);
  expect(reasons).toMatchObject([{ code: "peer-lost" }]);
  expect(reasons[0]!.message).toContain("bulk 0");
});

test("a connection that is lost again meanwhile does not make it longer", () => {
  outage.lost("control");
  outage.lost("bulk 0");
  clock.advance(LINK_LOST_MS_MAX / 2);
  outage.back("bulk 0");
  outage.lost("bulk 0");
  clock.advance(LINK_LOST_MS_MAX / 2);
  expect(reasons).toHaveLength(1);
});

test("all of a guest that stands still share two seconds", () => {
  outage.guestStandsStill();
  outage.lost("control");
  clock.advance(LINK_LOST_STUNNED_MS_MAX - 500);
  outage.back("control");
  clock.advance(10_000);
  outage.lost("control");
  clock.advance(499);
  expect(reasons).toEqual([]);
  clock.advance(1);
  expect(reasons).toHaveLength(1);
});

test("one that lasts when the guest is stunned has two seconds from then on", () => {
  outage.lost("control");
  clock.advance(30_000);
  outage.guestStandsStill();
  clock.advance(LINK_LOST_STUNNED_MS_MAX - 1);
  expect(reasons).toEqual([]);
  clock.advance(1);
  expect(reasons).toHaveLength(1);
});

test("what was not lost cannot be back", () => {
  expect(outage.back("control")).toBe(null);
  expect(outage.lasts).toBe(false);
});
