import { expect, test } from "vitest";
import { EventStreamParser, type StreamMessage } from "./event-stream-parser.ts";

const STREAM = [
  "retry: 2000\n\n",
  'id: 7\nevent: migration.phase\ndata: {"id":7}\n\n',
  ": heartbeat\n\n",
  'id: 8\r\ndata: {"text":"a: b"}\r\n\r\n',
  "data: two\ndata:lines\n\n",
].join("");
const MESSAGES: StreamMessage[] = [
  { lastEventId: "7", data: '{"id":7}' },
  { lastEventId: "8", data: '{"text":"a: b"}' },
  { lastEventId: "8", data: "two\nlines" },
];

test("messages come out with the id to go on from, heartbeats and retry times do not", () => {
  expect(new EventStreamParser().push(STREAM)).toEqual(MESSAGES);
});

test("a stream that is cut anywhere in two gives the same messages", () => {
  for (let at = 0; at <= STREAM.length; at++) {
    const parser = new EventStreamParser();
    const messages = [...parser.push(STREAM.slice(0, at)), ...parser.push(STREAM.slice(at))];
    expect(messages, `cut at ${at}`).toEqual(MESSAGES);
  }
});

test("a message that has not ended is not told", () => {
  expect(new EventStreamParser().push('id: 9\ndata: {"id":9}\n')).toEqual([]);
});

test("a message without an end does not grow for ever", () => {
  const parser = new EventStreamParser();
  const line = `data: ${"x".repeat(65_536)}\n`;
  expect(() => {
    for (let i = 0; i < 17; i++) parser.push(line);
  }).toThrow(RangeError);
});
