import { EventEmitter } from "node:events";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { WebSocket } from "ws";
import { ManualClock } from "@vmferry/agent";
import { CloseCode, encodeControl, limits, type ControlMessageOf } from "@vmferry/protocol";
import { admitBulk, sameSecret, type BulkLink } from "./bulk-link.ts";

const secret = "5e".repeat(32);
const hello: ControlMessageOf<"bulk-hello"> = {
  kind: "bulk-hello",
  version: limits.PROTOCOL_VERSION,
  migrationId: "m1",
  session: secret,
  index: 2,
};

/** As much of a WebSocket as a bulk connection uses. */
class FakeSocket extends EventEmitter {
  readonly OPEN = 1;
  readonly readyState = 1;
  readonly closeCodes: number[] = [];
  pings = 0;
  terminated = false;

  ping(): void {
    this.pings++;
  }

  close(code: number): void {
    this.closeCodes.push(code);
  }

  terminate(): void {
    this.terminated = true;
    this.emit("close", 1006);
  }
}

let socket: FakeSocket;
let clock: ManualClock;
let attached: { index: number; link: BulkLink }[];

beforeEach(() => {
  vi.useFakeTimers();
  socket = new FakeSocket();
  attached = [];
  const attach = (index: number, link: BulkLink): void => void attached.push({ index, link });
  clock = new ManualClock();
  admitBulk(socket as unknown as WebSocket, clock, (migrationId) =>
    migrationId === "m1" ? { secret, bulkConnections: 3, attach } : undefined,
  );
});

afterEach(() => {
  vi.useRealTimers();
});

function say(message: Buffer, isBinary = true): void {
  socket.emit("message", message, isBinary);
}

describe("a bulk connection", () => {
  test("is attached to the session whose secret it knows", () => {
    say(encodeControl(hello));
    expect(attached).toMatchObject([{ index: 2 }]);
    expect(socket.closeCodes).toEqual([]);
    vi.advanceTimersByTime(60_000);
    expect(socket.closeCodes).toEqual([]);
  });

  test("that says nothing is closed after a while", () => {
    vi.advanceTimersByTime(4999);
    expect(socket.closeCodes).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(socket.closeCodes).toEqual([CloseCode.PROTOCOL_VIOLATION]);
    expect(socket.terminated).toBe(true);
  });

  test("that ends before it said anything leaves no timer behind", () => {
    socket.emit("close", 1006);
    expect(vi.getTimerCount()).toBe(0);
  });

  test.each([
    ["another secret", { session: "5f".repeat(32) }],
    ["another migration", { migrationId: "m2" }],
  ])("with %s is told that there is no such session", (_what, wrong) => {
    say(encodeControl({ ...hello, ...wrong }));
    expect(socket.closeCodes).toEqual([CloseCode.SESSION_UNKNOWN]);
    expect(attached).toEqual([]);
  });

  test.each([
    ["an index out of range", encodeControl({ ...hello, index: 3 })],
    ["an older protocol version", encodeControl({ ...hello, version: hello.version - 1 })],
    ["a newer protocol version", encodeControl({ ...hello, version: hello.version + 1 })],
    ["another message first", encodeControl({ kind: "credit", bytes: 5 })],
    ["bytes that are no message", Buffer.from("hello")],
    ["nothing at all", Buffer.alloc(0)],
  ])("with %s breaks the protocol", (_what, message) => {
    say(message);
    expect(socket.closeCodes).toEqual([CloseCode.PROTOCOL_VIOLATION]);
    expect(attached).toEqual([]);
  });

  test("that was refused is not admitted by a better second message", () => {
    say(encodeControl({ ...hello, index: 3 }));
    say(encodeControl(hello));
    expect(attached).toEqual([]);
  });

  test("does not end the process by an error before it said anything", () => {
    expect(() => socket.emit("error", new Error("reset"))).not.toThrow();
  });
});

describe("an attached bulk connection", () => {
  let frames: Buffer[];
  let ends: Error[];

  beforeEach(() => {
    frames = [];
    ends = [];
    say(encodeControl(hello));
    attached[0]!.link.listen(
      (frame) => frames.push(frame),
      (reason) => ends.push(reason),
    );
  });

  test("beats, as long as it is open", () => {
    clock.advance(3 * limits.HEARTBEAT_INTERVAL_MS);
    expect(socket.pings).toBe(4);
    socket.emit("close", 1006);
    expect(clock.timerCount).toBe(0);
  });

  test("hands on frames as they are", () => {
    say(Buffer.from("frame"));
    expect(frames).toEqual([Buffer.from("frame")]);
  });

  test("takes no text for a frame", () => {
    say(Buffer.from("text"), false);
    expect(frames).toEqual([]);
    expect(ends).toMatchObject([{ code: "protocol-violation" }]);
  });

  test("tells why it ended", () => {
    socket.emit("error", new Error("reset"));
    socket.emit("close", 1006);
    expect(ends).toMatchObject([
      { detail: { code: "peer-lost", closeCode: null } },
      { detail: { code: "peer-lost", closeCode: 1006 } },
    ]);
  });

  test("does not call our own close a loss", () => {
    attached[0]!.link.close(CloseCode.DONE);
    expect(socket.closeCodes).toEqual([CloseCode.DONE]);
    expect(socket.terminated).toBe(true);
    expect(ends).toEqual([]);
  });
});

describe("secrets", () => {
  test("are the same only when every character is", () => {
    expect(sameSecret(secret, secret)).toBe(true);
    for (const wrong of [
      "",
      secret.slice(1),
      `${secret}0`,
      `${secret.slice(1)}0`,
      "é".repeat(64),
    ]) {
      expect(sameSecret(wrong, secret)).toBe(false);
    }
  });
});
