import { beforeEach, expect, test } from "vitest";
import { BulkLane, type LaneSocket } from "./bulk-lane.ts";

/** A connection that takes everything. */
class Socket implements LaneSocket {
  readonly receivedFrames: number;
  readonly bufferedBytes = 7;
  readonly sent: string[] = [];

  constructor(receivedFrames = 0) {
    this.receivedFrames = receivedFrames;
  }

  send(frame: Buffer): void {
    this.sent.push(frame.toString());
  }
}

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

let lane: BulkLane;
let flushed: string[];

beforeEach(() => {
  lane = new BulkLane();
  flushed = [];
});

function send(...frames: readonly string[]): void {
  for (const frame of frames) lane.send(Buffer.from(frame), () => flushed.push(frame));
}

test("passes frames on, and gives their buffers back when the dest has them", () => {
  const socket = new Socket();
  lane.connect(socket);
  send("a", "b", "c");
  expect(socket.sent).toEqual(["a", "b", "c"]);
  expect(flushed).toEqual([]);
  lane.received(2);
  expect(flushed).toEqual(["a", "b"]);
  expect(lane.bufferedBytes).toBe(7);
});

test("goes on behind what the dest has, and counts what goes out twice", () => {
  lane.connect(new Socket());
  send("a", "b", "cc");
  lane.lost();
  expect(lane.bufferedBytes).toBe(Infinity);
  send("d");
  const next = new Socket(2);
  lane.connect(next);
  expect(next.sent).toEqual(["cc", "d"]);
  expect(flushed).toEqual(["a", "b"]);
  expect(lane.resentBytes).toBe(2);
  send("e");
  expect(next.sent).toEqual(["cc", "d", "e"]);
});

test("believes no dest that has what no connection was given", () => {
  lane.connect(new Socket());
  send("a");
  expect(() => {
    lane.received(2);
  }).toThrow("more frames received than were sent");
  lane.lost();
  send("b");
  expect(() => {
    lane.connect(new Socket(2));
  }).toThrow("more frames received than were sent");
});

test("learns nothing from a count that the connection after it has overtaken", () => {
  lane.connect(new Socket());
  send("a", "b");
  lane.lost();
  lane.connect(new Socket(2));
  lane.received(1);
  expect(flushed).toEqual(["a", "b"]);
});

test("gives up where nothing ever comes through", () => {
  lane.connect(new Socket());
  send("a");
  expect(() => {
    for (let i = 0; i < 30; i++) {
      lane.lost();
      lane.connect(new Socket());
    }
  }).toThrow("before anything comes through");
});

test("does not give up where something comes through, or where there is nothing to send", () => {
  lane.connect(new Socket());
  for (let i = 0; i < 50; i++) {
    send("a", "b");
    lane.lost();
    lane.connect(new Socket(2 * i + 1));
  }
  lane.received(100);
  for (let i = 0; i < 50; i++) {
    lane.lost();
    lane.connect(new Socket(100));
  }
});

test(`the dest has every frame once and in order, wherever it is cut (seed ${seed})`, () => {
  let state = seed;
  const random = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  for (let run = 0; run < 100; run++) {
    lane = new BulkLane();
    flushed = [];
    const arrived: string[] = [];
    let socket = new Socket();
    let taken = 0;
    lane.connect(socket);
    for (let count = 0; arrived.length < 200;) {
      const what = random();
      if (what < 0.45 && count < 200) send(`${count++}`);
      else if (what < 0.9 && taken < socket.sent.length) arrived.push(socket.sent[taken++]!);
      else if (what < 0.95) lane.received(arrived.length);
      else {
        if (random() < 0.5) lane.lost();
        if (count < 200 && random() < 0.5) send(`${count++}`);
        socket = new Socket(arrived.length);
        taken = 0;
        lane.connect(socket);
      }
    }
    expect(arrived).toEqual(Array.from({ length: 200 }, (_, i) => `${i}`));
    lane.received(200);
    expect(flushed).toEqual(arrived);
  }
});
