import { beforeEach, expect, test } from "vitest";
import { PeerError } from "@vmferry/agent";
import { CloseCode, limits, violation, type ControlMessage } from "@vmferry/protocol";
import type { BulkLink } from "./bulk-link.ts";
import { BulkLinks } from "./bulk-links.ts";

const { RECEIVED_FRAMES_STEP, RECEIVED_FRAME_BYTES_STEP } = limits;

/** A connection as the session sees it. */
class Link implements BulkLink {
  readonly sent: ControlMessage[] = [];
  closeCode: CloseCode | null = null;
  arrive: (frame: Buffer) => void = () => undefined;
  end: (reason: Error) => void = () => undefined;

  send(message: ControlMessage): void {
    this.sent.push(message);
  }

  listen(onFrame: (frame: Buffer) => void, onEnd: (reason: Error) => void): void {
    this.arrive = onFrame;
    this.end = onEnd;
  }

  close(code: CloseCode): void {
    this.closeCode = code;
  }
}

let frames: [number, string][];
let failures: unknown[];
let refuse: boolean;
let links: BulkLinks;

beforeEach(() => {
  frames = [];
  failures = [];
  refuse = false;
  links = new BulkLinks({
    count: 2,
    onFrame: (index, frame) => {
      if (refuse) throw violation("that frame");
      frames.push([index, frame.toString()]);
    },
    onFailed: (error) => failures.push(error),
  });
});

function attach(index: number): Link {
  const link = new Link();
  links.attach(index, link);
  return link;
}

const received = (count: number): ControlMessage => ({ kind: "received", received: count });

test("whoever dials is told first what has come of its index", () => {
  const first = attach(0);
  expect(first.sent).toEqual([received(0)]);
  first.arrive(Buffer.from("a"));
  first.arrive(Buffer.from("b"));
  expect(attach(1).sent).toEqual([received(0)]);
  expect(attach(0).sent).toEqual([received(2)]);
});

test("a connection that was replaced is closed, and what still comes over it is left out", () => {
  const first = attach(0);
  const second = attach(0);
  expect(first.closeCode).toBe(CloseCode.SESSION_ENDED);
  first.arrive(Buffer.from("late"));
  second.arrive(Buffer.from("a"));
  expect(frames).toEqual([[0, "a"]]);
});

test("frames are counted in steps, by number and by size", () => {
  const link = attach(0);
  for (let i = 0; i < RECEIVED_FRAMES_STEP; i++) link.arrive(Buffer.from("x"));
  expect(link.sent).toEqual([received(0), received(RECEIVED_FRAMES_STEP)]);
  link.arrive(Buffer.alloc(RECEIVED_FRAME_BYTES_STEP));
  expect(link.sent.at(-1)).toEqual(received(RECEIVED_FRAMES_STEP + 1));
});

test("the loss of a connection is no failure, and what breaks the protocol is one", () => {
  const link = attach(0);
  link.end(new PeerError("lost", { code: "peer-lost", closeCode: 1006 }));
  expect(failures).toEqual([]);
  link.end(violation("text message"));
  expect(failures).toMatchObject([{ code: "protocol-violation" }]);
});

test("a frame that is refused does not count", () => {
  const link = attach(0);
  refuse = true;
  link.arrive(Buffer.from("bad"));
  expect(failures).toHaveLength(1);
  expect(attach(0).sent).toEqual([received(0)]);
});

test("after the end every connection is closed, and none is taken", () => {
  const link = attach(0);
  links.close();
  expect(link.closeCode).toBe(CloseCode.DONE);
  link.arrive(Buffer.from("late"));
  expect(attach(1).closeCode).toBe(CloseCode.SESSION_ENDED);
  expect(frames).toEqual([]);
});
