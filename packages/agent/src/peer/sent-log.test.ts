import { expect, test } from "vitest";
import { SentLog } from "./sent-log.ts";

function logOf(...sent: readonly string[]): SentLog<string> {
  const log = new SentLog<string>(4);
  for (const one of sent) log.push(one);
  return log;
}

test("keeps what the peer has not counted, in order", () => {
  const log = logOf("a", "b", "c");
  expect(log.received(2)).toEqual(["a", "b"]);
  expect(log.kept).toEqual(["c"]);
  log.push("d");
  expect(log).toMatchObject({ kept: ["c", "d"], receivedCount: 2, sentCount: 4 });
  expect(log.received(4)).toEqual(["c", "d"]);
  expect(log.kept).toEqual([]);
});

test("learns nothing from a count that was overtaken", () => {
  const log = logOf("a", "b");
  log.received(2);
  expect(log.received(1)).toEqual([]);
  expect(log.received(2)).toEqual([]);
  expect(log.receivedCount).toBe(2);
});

test("believes no peer that has more than was sent", () => {
  const log = logOf("a");
  expect(() => log.received(2)).toThrow("more received than was sent");
  expect(log.kept).toEqual(["a"]);
});

test("says when it is full, and when it is not any more", () => {
  const log = logOf("a", "b", "c");
  expect(log.full).toBe(false);
  log.push("d");
  expect(log.full).toBe(true);
  log.received(1);
  expect(log.full).toBe(false);
});
