import { beforeEach, describe, expect, test } from "vitest";
import { Deferred } from "@vmferry/core";
import { CloseCode, limits, violation, type ControlMessage } from "@vmferry/protocol";
import { PeerError } from "./peer-error.ts";
import { SessionChannel, type MessageLink } from "./session-channel.ts";

const { RECEIVED_MESSAGES_STEP, SENT_MESSAGES_MAX } = limits;
const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

/** One end of a connection whose other end is `peer`; messages are on their way until `deliver`. */
class End implements MessageLink {
  readonly closed: Promise<Error>;
  readonly onTheWay: ControlMessage[] = [];
  peer: End | null = null;
  closeCode: number | null = null;
  readonly #closed = new Deferred<Error>();
  #listener: ((message: ControlMessage) => void) | null = null;

  constructor() {
    this.closed = this.#closed.promise;
  }

  listen(listener: (message: ControlMessage) => void): void {
    this.#listener = listener;
  }

  send(message: ControlMessage): void {
    if (this.#closed.settled) throw new Error("the connection is gone");
    this.onTheWay.push(message);
  }

  /** The next message that the other end has sent; false when there is none. */
  deliver(): boolean {
    if (this.#closed.settled || this.#listener === null) return false;
    const message = this.peer?.onTheWay.shift();
    if (message === undefined) return false;
    this.#listener(message);
    return true;
  }

  close(code: CloseCode): void {
    this.closeCode ??= code;
    this.end(lost(code));
  }

  end(reason: Error = lost(1006)): void {
    this.#closed.resolve(reason);
  }
}

const lost = (closeCode: number | null): PeerError =>
  new PeerError("lost", { code: "peer-lost", closeCode });
const credit = (bytes: number): ControlMessage => ({ kind: "credit", bytes });
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function pair(): [End, End] {
  const ends: [End, End] = [new End(), new End()];
  ends[0].peer = ends[1];
  ends[1].peer = ends[0];
  return ends;
}

describe("a session over one connection", () => {
  let end: End;
  let channel: SessionChannel;
  let broken: Error[];
  let heard: ControlMessage[];

  beforeEach(() => {
    [end] = pair();
    broken = [];
    heard = [];
    channel = new SessionChannel(end, (reason) => broken.push(reason));
    channel.listen((message) => heard.push(message));
  });

  test("counts what it takes, and says so at regular intervals", () => {
    for (let i = 1; i <= 2 * RECEIVED_MESSAGES_STEP + 1; i++) end.peer!.send(credit(i));
    while (end.deliver());
    expect(channel.receivedCount).toBe(2 * RECEIVED_MESSAGES_STEP + 1);
    expect(heard).toHaveLength(2 * RECEIVED_MESSAGES_STEP + 1);
    expect(end.onTheWay).toEqual([
      { kind: "received", received: RECEIVED_MESSAGES_STEP },
      { kind: "received", received: 2 * RECEIVED_MESSAGES_STEP },
    ]);
  });

  test("gives up a peer that acknowledges nothing", async () => {
    for (let i = 0; i < SENT_MESSAGES_MAX; i++) channel.send(credit(i));
    expect(() => {
      channel.send(credit(0));
    }).toThrow("does not acknowledge");
    expect(await channel.closed).toMatchObject({ code: "peer-lost" });
  });

  test("goes on for ever with a peer that does", () => {
    for (let i = 1; i <= 3 * SENT_MESSAGES_MAX; i++) {
      channel.send(credit(i));
      if (i % RECEIVED_MESSAGES_STEP !== 0) continue;
      end.peer!.send({ kind: "received", received: i });
      end.deliver();
    }
    expect(channel.ended).toBe(false);
  });

  test.each([
    ["a farewell", lost(CloseCode.DONE)],
    ["a violation", violation("something")],
    ["a bug of ours", new Error("assertion")],
  ])("is over after %s", async (_, reason) => {
    end.end(reason);
    expect(await channel.closed).toBe(reason);
    expect(broken).toEqual([]);
    expect(() => {
      channel.send(credit(1));
    }).toThrow("over");
  });

  test.each([1006, 1001, 1009, null])("waits for another after an end with %s", async (code) => {
    end.end(lost(code));
    await settle();
    expect(broken).toHaveLength(1);
    expect(channel.ended).toBe(false);
    channel.send(credit(1));
  });

  test("does not listen to a connection that was replaced", async () => {
    const [next] = pair();
    channel.resume(next, 0);
    expect(end.closeCode).toBe(CloseCode.SESSION_ENDED);
    await settle();
    expect(broken).toEqual([]);
    end.peer!.send(credit(1));
    end.deliver();
    expect(heard).toEqual([]);
  });

  test("believes no peer that has more than was sent", () => {
    channel.send(credit(1));
    const [next] = pair();
    expect(() => {
      channel.resume(next, 2);
    }).toThrow("more received");
  });

  test("is over with the next loss when it is told so, or with one that lasts", async () => {
    channel.resumeNoMore();
    end.end();
    expect(await channel.closed).toMatchObject({ code: "peer-lost" });
    const [other] = pair();
    const late = new SessionChannel(other, () => undefined);
    other.end();
    await settle();
    late.resumeNoMore();
    expect(await late.closed).toMatchObject({ code: "peer-lost" });
  });
});

describe("two ends of a session", () => {
  test(`hear everything once and in order, wherever it is cut (seed ${seed})`, async () => {
    const random = numbersFrom(seed);
    for (let run = 0; run < 60; run++) await cutAtRandom(random);
  });
});

/** Both send 300 messages, and the connection is cut some 40 times between any two events. */
async function cutAtRandom(random: () => number): Promise<void> {
  let [a, b] = pair();
  const heard: [number[], number[]] = [[], []];
  const channels = [a, b].map((end, side) => {
    const channel = new SessionChannel(end, () => undefined);
    channel.listen((message) => {
      if (message.kind === "credit") heard[side]!.push(message.bytes);
    });
    return channel;
  }) as [SessionChannel, SessionChannel];
  const sent: [number, number] = [0, 0];
  const isDone = (): boolean => heard.every(({ length }) => length === 300);
  while (!isDone()) {
    const what = random();
    const side = random() < 0.5 ? 0 : 1;
    if (what < 0.4 && sent[side] < 300) channels[side].send(credit(sent[side]++));
    else if (what < 0.9) (side === 0 ? a : b).deliver();
    else if (what < 0.96) {
      // One side may know long before the other, which is half open then.
      (side === 0 ? a : b).end();
      await settle();
    } else {
      // The source may come back over a new connection, and lose that before it has its answer.
      const [nextA, nextB] = pair();
      a.end();
      await settle();
      const toldByA = channels[0].receivedCount;
      const toldByB = channels[1].receivedCount;
      channels[1].resume(nextB, toldByA);
      b = nextB;
      if (random() < 0.3) continue;
      channels[0].resume(nextA, toldByB);
      a = nextA;
    }
  }
  const all = Array.from({ length: 300 }, (_, i) => i);
  expect(heard).toEqual([all, all]);
}

function numbersFrom(start: number): () => number {
  let state = start;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
