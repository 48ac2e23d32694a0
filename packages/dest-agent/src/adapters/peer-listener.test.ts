import { once } from "node:events";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { WebSocket, type ClientOptions } from "ws";
import { ManualClock, type ControlChannel } from "@vmferry/agent";
import { CloseCode, encodeControl, limits, type ControlMessageOf } from "@vmferry/protocol";
import { admitBulk, type BulkLink } from "../session/bulk-link.ts";
import { admitPages, type PageLink } from "../session/page-link.ts";
import { PeerListener } from "./peer-listener.ts";

const TOKEN = "a shared secret";
const secret = "5e".repeat(32);
const pagesHello: ControlMessageOf<"pages-hello"> = {
  kind: "pages-hello",
  version: limits.PROTOCOL_VERSION,
  migrationId: "m1",
  epoch: 3,
  generation: 1,
  incarnation: "s1",
  lane: "urgent",
  attempt: 7,
};
const bulkHello: ControlMessageOf<"bulk-hello"> = {
  kind: "bulk-hello",
  version: limits.PROTOCOL_VERSION,
  migrationId: "m1",
  session: secret,
  index: 0,
};

let listener: PeerListener;
let channels: ControlChannel[];
let bulkSockets: WebSocket[];
let attached: { index: number; link: BulkLink }[];
let pagesClock: ManualClock;
let attachedPages: { lane: string; attempt: number; link: PageLink }[];
const clients: (WebSocket | Socket)[] = [];

async function open(token: string | null): Promise<void> {
  channels = [];
  bulkSockets = [];
  attached = [];
  attachedPages = [];
  pagesClock = new ManualClock();
  listener = await PeerListener.open({
    host: "127.0.0.1",
    port: 0,
    token,
    tls: null,
    onStranger: () => expect.unreachable(),
    clock: new ManualClock(),
    onControl: (channel) => channels.push(channel),
    onBulk: (socket) => {
      bulkSockets.push(socket);
      const attach = (index: number, link: BulkLink): void => void attached.push({ index, link });
      admitBulk(socket, new ManualClock(), (id) =>
        id === "m1" ? { secret, bulkConnections: 2, attach } : undefined,
      );
    },
    onBlocks: () => undefined,
    onPages: (socket) => {
      admitPages(socket, pagesClock, (id) =>
        id !== "m1"
          ? undefined
          : {
              claimMatches: ({ epoch, incarnation }) => epoch === 3 && incarnation === "s1",
              attachPages: (lane, attempt, link) => {
                attachedPages.push({ lane, attempt, link });
              },
            },
      );
    },
  });
}

beforeEach(() => open(TOKEN));

afterEach(async () => {
  for (const client of clients.splice(0)) {
    if (client instanceof WebSocket) client.terminate();
    else client.destroy();
  }
  await listener.close();
});

function dial(path: string, authorization: string | null = `Bearer ${TOKEN}`): WebSocket {
  const options: ClientOptions = { headers: authorization === null ? {} : { authorization } };
  const socket = new WebSocket(`ws://127.0.0.1:${listener.port}${path}`, options);
  socket.on("error", () => undefined);
  clients.push(socket);
  return socket;
}

/** The status that an upgrade is refused with; 101 when it is not. */
async function status(socket: WebSocket): Promise<number> {
  return new Promise((resolve) => {
    socket.once("open", () => {
      resolve(101);
    });
    socket.once("unexpected-response", (_request, response) => {
      resolve(response.statusCode!);
    });
  });
}

async function closeCode(socket: WebSocket): Promise<number> {
  const [code] = (await once(socket, "close")) as [number];
  return code;
}

async function plainSocket(): Promise<Socket> {
  const socket = connect(listener.port, "127.0.0.1");
  clients.push(socket);
  socket.on("error", () => undefined);
  await once(socket, "connect");
  return socket;
}

/** Sends these bytes and reads until the listener ends the connection. */
async function say(text: string): Promise<string> {
  const socket = await plainSocket();
  let answer = "";
  socket.on("data", (chunk) => (answer += chunk.toString("latin1")));
  socket.write(text);
  await once(socket, "close");
  return answer;
}

describe("who may come in", () => {
  test.each(["/v1/peer/control", "/v1/peer/bulk", "/v1/peer/pages", "/v1/peer/control?x=1"])(
    "a source with the token, at %s",
    async (path) => {
      expect(await status(dial(path))).toBe(101);
    },
  );

  test.each([null, "", TOKEN, "Bearer", "Bearer another", `bearer ${TOKEN}`, `Bearer ${TOKEN}x`])(
    "nobody who says %j for the token",
    async (authorization) => {
      for (const path of ["/v1/peer/control", "/v1/peer/bulk", "/elsewhere"]) {
        expect(await status(dial(path, authorization))).toBe(401);
      }
      expect([channels, bulkSockets]).toEqual([[], []]);
    },
  );

  test("anybody, where no token is configured", async () => {
    await listener.close();
    await open(null);
    expect(await status(dial("/v1/peer/control", null))).toBe(101);
    expect(await status(dial("/v1/peer/control", "Bearer whatever"))).toBe(101);
  });

  test.each(["/", "/v1/peer", "/v1/peer/control/", "/v1/peer/faults", "/V1/peer/control"])(
    "nobody at %s",
    async (path) => {
      expect(await status(dial(path))).toBe(404);
    },
  );

  test("nobody beyond the 256th connection, until one of them leaves", async () => {
    const inside = Array.from({ length: 256 }, () => dial("/v1/peer/bulk"));
    await Promise.all(inside.map((socket) => once(socket, "open")));
    expect(await status(dial("/v1/peer/bulk"))).toBe(503);
    inside[0]!.terminate();
    await expect.poll(() => status(dial("/v1/peer/bulk"))).toBe(101);
  });
});

describe("a stranger", () => {
  test("who speaks plain HTTP is told what this port is for", async () => {
    const response = await new Promise<{ code: number; text: string }>((resolve) => {
      request({ port: listener.port, host: "127.0.0.1", path: "/" }, (incoming) => {
        let text = "";
        incoming.on("data", (chunk: Buffer) => (text += chunk.toString()));
        incoming.on("end", () => {
          resolve({ code: incoming.statusCode!, text });
        });
      }).end();
    });
    expect(response.code).toBe(426);
    expect(response.text).toContain("WebSocket");
  });

  const upgrade = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
  test.each(["//", "//x:y", "http://["])(
    "with the target %s does not end the process",
    async (target) => {
      expect(await say(`GET ${target} HTTP/1.1\r\n${upgrade}`)).toContain("401");
      const authorized = `authorization: Bearer ${TOKEN}\r\n${upgrade}`;
      expect(await say(`GET ${target} HTTP/1.1\r\n${authorized}`)).toContain("404");
      expect(await status(dial("/v1/peer/control"))).toBe(101);
    },
  );

  test("whose upgrade is none is refused", async () => {
    const head = `GET /v1/peer/control HTTP/1.1\r\nauthorization: Bearer ${TOKEN}\r\n`;
    expect(await say(`${head}${upgrade}`)).toMatch(/^HTTP\/1\.1 400 /);
    expect(channels).toEqual([]);
  });
});

describe("a control connection", () => {
  test("carries messages both ways", async () => {
    const socket = dial("/v1/peer/control");
    await once(socket, "open");
    await expect.poll(() => channels.length).toBe(1);
    socket.send(encodeControl({ kind: "credit", bytes: 7 }));
    expect(await channels[0]!.next("credit")).toEqual({ kind: "credit", bytes: 7 });
    channels[0]!.close(CloseCode.DONE);
    expect(await closeCode(socket)).toBe(CloseCode.DONE);
  });

  test("is closed when a message is larger than any may be", async () => {
    const socket = dial("/v1/peer/control");
    await once(socket, "open");
    socket.send(Buffer.alloc(limits.CONTROL_BYTES_MAX + 1));
    await closeCode(socket);
    expect(await channels[0]!.closed).toMatchObject({ code: "peer-lost" });
  });
});

describe("a bulk connection", () => {
  async function answer(message: Buffer): Promise<number> {
    const socket = dial("/v1/peer/bulk");
    await once(socket, "open");
    socket.send(message);
    return closeCode(socket);
  }

  test("is attached by the session's secret, and its frames come in order", async () => {
    const socket = dial("/v1/peer/bulk");
    await once(socket, "open");
    socket.send(encodeControl({ ...bulkHello, index: 1 }));
    await expect.poll(() => attached.length).toBe(1);
    expect(attached[0]!.index).toBe(1);
    const frames: number[] = [];
    attached[0]!.link.listen(
      (frame) => frames.push(frame.length),
      () => undefined,
    );
    for (let i = 0; i < 5; i++) socket.send(Buffer.alloc(limits.FRAME_BYTES_MAX - i));
    await expect.poll(() => frames.length).toBe(5);
    expect(frames.map((bytes) => limits.FRAME_BYTES_MAX - bytes)).toEqual([0, 1, 2, 3, 4]);
  });

  test("is closed with 4005 for a wrong secret", async () => {
    expect(await answer(encodeControl({ ...bulkHello, session: "0".repeat(64) }))).toBe(4005);
    expect(attached).toEqual([]);
  });

  test("is closed with 4001 for an index out of range, and without a hello", async () => {
    expect(await answer(encodeControl({ ...bulkHello, index: 2 }))).toBe(4001);
    expect(await answer(Buffer.alloc(300))).toBe(4001);
    expect(attached).toEqual([]);
  });

  test("is ended when a frame is larger than any may be", async () => {
    const socket = dial("/v1/peer/bulk");
    await once(socket, "open");
    socket.send(encodeControl(bulkHello));
    await expect.poll(() => attached.length).toBe(1);
    const reasons: Error[] = [];
    attached[0]!.link.listen(
      () => expect.unreachable(),
      (reason) => reasons.push(reason),
    );
    socket.send(Buffer.alloc(limits.FRAME_BYTES_MAX + 1));
    await closeCode(socket);
    await expect.poll(() => reasons.length).toBeGreaterThan(0);
    expect(reasons[0]).toMatchObject({ code: "peer-lost" });
  });
});

describe("a page lane", () => {
  async function answer(message: Buffer): Promise<number> {
    const socket = dial("/v1/peer/pages");
    await once(socket, "open");
    socket.send(message);
    return closeCode(socket);
  }

  /** A lane that was attached, and what its owner hears. */
  async function lane(): Promise<{ socket: WebSocket; heard: number[]; ends: Error[] }> {
    const socket = dial("/v1/peer/pages");
    await once(socket, "open");
    socket.send(encodeControl(pagesHello));
    await expect.poll(() => attachedPages.length).toBe(1);
    const heard: number[] = [];
    const ends: Error[] = [];
    attachedPages[0]!.link.listen(
      (bytes) => heard.push(bytes.length),
      (reason) => ends.push(reason),
    );
    return { socket, heard, ends };
  }

  test("is attached with its attempt, and carries messages both ways", async () => {
    const { socket, heard } = await lane();
    expect(attachedPages[0]).toMatchObject({ lane: "urgent", attempt: 7 });
    socket.send(Buffer.alloc(limits.FRAME_BYTES_MAX));
    await expect.poll(() => heard).toEqual([limits.FRAME_BYTES_MAX]);
    const said = once(socket, "message");
    const left = new Promise<void>((resolve) => {
      attachedPages[0]!.link.send(Buffer.from("a page message"), resolve);
    });
    expect((await said)[0]).toEqual(Buffer.from("a page message"));
    await left;
  });

  test.each<[string, Partial<typeof pagesHello>, number]>([
    ["another migration", { migrationId: "m2" }, 4005],
    ["another stun", { epoch: 4 }, 4005],
    ["another incarnation", { incarnation: "s2" }, 4005],
    ["another version", { version: 9 }, 4001],
  ])("is closed for %s", async (_, wrong, code) => {
    expect(await answer(encodeControl({ ...pagesHello, ...wrong }))).toBe(code);
    expect(attachedPages).toEqual([]);
  });

  test("is closed with 4001 without its hello", async () => {
    expect(await answer(encodeControl(bulkHello))).toBe(4001);
    expect(await answer(Buffer.alloc(300))).toBe(4001);
  });

  test("is closed when its hello does not come in time", async () => {
    const socket = dial("/v1/peer/pages");
    await once(socket, "open");
    await expect.poll(() => pagesClock.timerCount).toBe(1);
    pagesClock.advance(5000);
    expect(await closeCode(socket)).toBe(4001);
  });

  test("ends when nothing is heard of the source, not even a ping", async () => {
    const { socket, ends } = await lane();
    socket.pause();
    pagesClock.advance(limits.HEARTBEAT_LOST_MS + limits.HEARTBEAT_INTERVAL_MS);
    expect(ends).toMatchObject([{ code: "peer-lost" }]);
    expect(pagesClock.timerCount).toBe(0);
  });

  test("ends once, with the source's close code, and by a text message", async () => {
    const { socket, ends } = await lane();
    socket.send("text");
    await expect.poll(() => ends).toMatchObject([{ code: "protocol-violation" }]);
    socket.close(4004);
    await closeCode(socket);
    expect(ends).toHaveLength(1);
  });

  test("that its owner closes ends without a word to the owner", async () => {
    const { socket, ends } = await lane();
    const code = closeCode(socket);
    attachedPages[0]!.link.close(CloseCode.SESSION_ENDED);
    expect(await code).toBe(4004);
    expect(ends).toEqual([]);
  });
});

describe("closing", () => {
  test("ends every connection, also of those who never said a word", async () => {
    const socket = dial("/v1/peer/control");
    await once(socket, "open");
    const silent = await plainSocket();
    const ended = [once(socket, "close"), once(silent, "close")];
    silent.resume();
    await listener.close();
    await Promise.all(ended);
    await open(TOKEN);
  });

  test("does not wait for somebody who was refused and stays on the line", async () => {
    const stubborn = connect({ port: listener.port, host: "127.0.0.1", allowHalfOpen: true });
    clients.push(stubborn);
    stubborn.on("error", () => undefined);
    stubborn.write(
      "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    await once(stubborn, "data");
    await listener.close();
    await open(TOKEN);
  });

  test("tells when the port is taken", async () => {
    const options = { host: "127.0.0.1", port: listener.port, token: null, tls: null };
    const callbacks = {
      onControl: () => undefined,
      onBulk: () => undefined,
      onPages: () => undefined,
      onStranger: () => undefined,
      onBlocks: () => undefined,
    };
    const second = PeerListener.open({ ...options, ...callbacks, clock: new ManualClock() });
    await expect(second).rejects.toMatchObject({ code: "EADDRINUSE" });
  });
});
