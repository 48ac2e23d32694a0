import { once } from "node:events";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer, type ClientOptions } from "ws";
import {
  CloseCode,
  encodeControl,
  limits,
  violation,
  type ControlMessage,
} from "@vmferry/protocol";
import { ManualClock } from "../events/manual-clock.ts";
import { ControlChannel } from "./control-channel.ts";

const { HEARTBEAT_INTERVAL_MS, HEARTBEAT_LOST_MS } = limits;

let server: WebSocketServer;
let clock: ManualClock;
/** The other end, as a bare WebSocket. */
let peer: WebSocket;
/** The channel's own end. */
let ours: WebSocket;
let channel: ControlChannel;

beforeEach(async () => {
  server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  await once(server, "listening");
  clock = new ManualClock();
});

afterEach(async () => {
  for (const client of server.clients) client.terminate();
  peer.terminate();
  await new Promise((resolve) => {
    server.close(resolve);
  });
});

async function open(options: ClientOptions = {}): Promise<void> {
  const connected = once(server, "connection");
  const { port } = server.address() as AddressInfo;
  peer = new WebSocket(`ws://127.0.0.1:${port}`, options);
  peer.on("error", () => undefined);
  const opened = once(peer, "open");
  [ours] = (await connected) as [WebSocket];
  channel = new ControlChannel(ours, clock);
  await opened;
}

function say(...messages: readonly ControlMessage[]): void {
  for (const message of messages) peer.send(encodeControl(message));
}

/** What the peer has sent so far is there: its ping behind it was answered. */
async function answered(): Promise<void> {
  const pong = once(peer, "pong");
  peer.ping();
  await pong;
}

const credit = (bytes: number): ControlMessage => ({ kind: "credit", bytes });
const reject: ControlMessage = { kind: "reject", code: "cancelled", text: "no" };

/** Every message and nothing but them, each in its turn. */
function collect(): number[] {
  const bytes: number[] = [];
  channel.listen((message) => {
    if (message.kind === "credit") bytes.push(message.bytes);
  });
  return bytes;
}

describe("messages", () => {
  test("that came before anybody listened come first and in order", async () => {
    await open();
    say(credit(1), credit(2), credit(3));
    await answered();
    const bytes = collect();
    expect(bytes).toEqual([1, 2, 3]);
    say(credit(4));
    await expect.poll(() => bytes).toEqual([1, 2, 3, 4]);
  });

  test("go to the listener as they come", async () => {
    await open();
    const bytes = collect();
    say(...Array.from({ length: 50 }, (_, i) => credit(i)));
    await expect.poll(() => bytes.length).toBe(50);
    expect(bytes).toEqual(Array.from({ length: 50 }, (_, i) => i));
  });

  test("can be awaited one at a time, before or after they come", async () => {
    await open();
    const first = channel.next("credit");
    say(credit(1), credit(2), reject);
    expect(await first).toEqual(credit(1));
    expect(await channel.next("reject", "credit")).toEqual(credit(2));
    expect(await channel.next("reject")).toEqual(reject);
  });

  test("of another kind than the one that is due break the protocol", async () => {
    await open();
    say(credit(1));
    await expect(channel.next("accept", "reject")).rejects.toMatchObject({
      detail: { code: "protocol-violation", rule: "credit where accept or reject was due" },
    });
  });

  test("reach the peer as they were sent", async () => {
    await open();
    const received: Buffer[] = [];
    peer.on("message", (data) => received.push(data as Buffer));
    for (let i = 0; i < 10; i++) channel.send(credit(i));
    await expect.poll(() => received.length).toBe(10);
    expect(received).toEqual(Array.from({ length: 10 }, (_, i) => encodeControl(credit(i))));
  });
});

describe("a peer that breaks the protocol", () => {
  /** The channel ends with the violation, and the peer is told. */
  async function refused(rule: string): Promise<void> {
    const closed = once(peer, "close");
    expect(await channel.closed).toMatchObject({ detail: { code: "protocol-violation", rule } });
    expect((await closed)[0]).toBe(CloseCode.PROTOCOL_VIOLATION);
    await expect(channel.next("credit")).rejects.toMatchObject({ code: "protocol-violation" });
  }

  test("by text", async () => {
    await open();
    peer.send("text");
    await refused("text message");
  });

  test("by bytes that are no message", async () => {
    await open();
    peer.send(Buffer.from("c1", "hex"));
    await channel.closed;
    expect(await channel.closed).toMatchObject({ code: "protocol-violation" });
  });

  test("by more messages than anybody takes", async () => {
    await open();
    say(...Array.from({ length: 1025 }, () => credit(1)));
    await channel.closed;
    expect(await channel.closed).toMatchObject({ detail: { rule: "too many messages" } });
  });

  test("is allowed as many messages as may wait", async () => {
    await open();
    say(...Array.from({ length: 1023 }, () => credit(1)), reject);
    await answered();
    const bytes = collect();
    expect(bytes).toHaveLength(1023);
  });

  test("is not listened to any more, whatever comes in the same packet", async () => {
    await open();
    const bytes = collect();
    const wire = (peer as unknown as { _socket: Duplex })._socket;
    wire.cork();
    peer.send(encodeControl(credit(1)));
    peer.send("text");
    peer.send(encodeControl(credit(2)));
    wire.uncork();
    expect(await channel.closed).toMatchObject({ code: "protocol-violation" });
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(bytes).toEqual([1]);
  });

  test("in the eyes of the listener ends the channel with its reason", async () => {
    await open();
    channel.listen(() => {
      throw violation("not now");
    });
    say(credit(1));
    await refused("not now");
  });
});

describe("heartbeats", () => {
  test("find a peer that is silent", async () => {
    await open({ autoPong: false });
    clock.advance(HEARTBEAT_LOST_MS);
    let ended = false;
    void channel.closed.then(() => (ended = true));
    await Promise.resolve();
    expect(ended).toBe(false);
    clock.advance(HEARTBEAT_INTERVAL_MS);
    expect(await channel.closed).toMatchObject({ detail: { code: "peer-lost", closeCode: null } });
    expect(clock.timerCount).toBe(0);
  });

  test("are sent at regular intervals", async () => {
    await open({ autoPong: false });
    let pings = 0;
    peer.on("ping", () => pings++);
    for (let i = 0; i < 3; i++) clock.advance(HEARTBEAT_INTERVAL_MS);
    await expect.poll(() => pings).toBeGreaterThanOrEqual(3);
  });

  test.each(["pong", "ping", "message"] as const)(
    "leave a peer alone that sends a %s now and then",
    async (sign) => {
      await open({ autoPong: false });
      for (let round = 0; round < 6; round++) {
        clock.advance(HEARTBEAT_INTERVAL_MS * 2);
        const heard = once(ours, sign);
        if (sign === "pong") peer.pong();
        else if (sign === "ping") peer.ping();
        else say(credit(0));
        await heard;
      }
      expect(() => {
        channel.send(credit(1));
      }).not.toThrow();
    },
  );

  test("measure the round trip, and the shortest counts", async () => {
    await open({ autoPong: false });
    expect(channel.roundTripMs).toBe(0);
    const bytes = collect();
    const pong = async (mark: number): Promise<void> => {
      peer.pong();
      say(credit(mark));
      await expect.poll(() => bytes.at(-1), { interval: 2 }).toBe(mark);
    };
    clock.advance(30);
    await pong(1);
    expect(channel.roundTripMs).toBe(30);
    clock.advance(HEARTBEAT_INTERVAL_MS - 30 + 12);
    await pong(2);
    expect(channel.roundTripMs).toBe(12);
    clock.advance(HEARTBEAT_INTERVAL_MS - 12 + 50);
    await pong(3);
    expect(channel.roundTripMs).toBe(12);
  });
});

describe("the end", () => {
  test("is known with the peer's code when it closes", async () => {
    await open();
    peer.close(CloseCode.SESSION_ENDED);
    expect(await channel.closed).toMatchObject({
      detail: { code: "peer-lost", closeCode: CloseCode.SESSION_ENDED },
    });
    expect(clock.timerCount).toBe(0);
  });

  test("is known when the peer is gone without a word", async () => {
    await open();
    peer.terminate();
    expect(await channel.closed).toMatchObject({ detail: { code: "peer-lost", closeCode: 1006 } });
  });

  test("ends the wait for a message, with the reason", async () => {
    await open();
    const waiting = channel.next("credit");
    peer.terminate();
    await expect(waiting).rejects.toMatchObject({ code: "peer-lost" });
    await expect(channel.next("credit")).rejects.toMatchObject({ code: "peer-lost" });
  });

  test("leaves what came before to be taken", async () => {
    await open();
    say(credit(1), reject);
    peer.close();
    await channel.closed;
    expect(await channel.next("credit")).toEqual(credit(1));
    expect(await channel.next("reject")).toEqual(reject);
    await expect(channel.next("credit")).rejects.toMatchObject({ code: "peer-lost" });
  });

  test("makes sending throw", async () => {
    await open();
    peer.terminate();
    await channel.closed;
    expect(() => {
      channel.send(credit(1));
    }).toThrow("the link to the peer is gone");
  });

  test("comes for a peer that does not read, with little kept for it", async () => {
    await open();
    peer.pause();
    const message: ControlMessage = {
      kind: "return-path",
      bytes: Buffer.alloc(limits.RETURN_PATH_BYTES_MAX),
    };
    let sent = 0;
    expect(() => {
      for (; sent < 10_000; sent++) channel.send(message);
    }).toThrow("the peer does not read its control messages");
    expect(sent * limits.RETURN_PATH_BYTES_MAX).toBeLessThan(32 * 2 ** 20);
    expect(await channel.closed).toMatchObject({ code: "peer-lost" });
  });

  test("that we want tells the peer why", async () => {
    await open();
    const closed = once(peer, "close");
    channel.close(CloseCode.SESSION_UNKNOWN);
    expect((await closed)[0]).toBe(CloseCode.SESSION_UNKNOWN);
    await channel.closed;
  });

  test("that we want does not wait for a peer that does not answer", async () => {
    await open();
    peer.pause();
    channel.close(CloseCode.DONE);
    clock.advance(999);
    let ended = false;
    void channel.closed.then(() => (ended = true));
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(ended).toBe(false);
    clock.advance(1);
    await channel.closed;
    expect(clock.timerCount).toBe(0);
  });
});
