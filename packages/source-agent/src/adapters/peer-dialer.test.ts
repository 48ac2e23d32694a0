import { createServer, type Server, type Socket } from "node:net";
import { createHash } from "node:crypto";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { ManualClock } from "@vmferry/agent";
import {
  CloseCode,
  encodeControl,
  limits,
  violation,
  type ControlMessageOf,
} from "@vmferry/protocol";
import { PeerDialer } from "./peer-dialer.ts";
import { ScriptedDest, type ScriptedConnection } from "./scripted-dest.ts";

const never = new AbortController().signal;
const bulkHello: ControlMessageOf<"bulk-hello"> = {
  kind: "bulk-hello",
  version: limits.PROTOCOL_VERSION,
  migrationId: "m1",
  session: "5e".repeat(32),
  index: 0,
};
const pagesHello: ControlMessageOf<"pages-hello"> = {
  kind: "pages-hello",
  version: limits.PROTOCOL_VERSION,
  migrationId: "m1",
  epoch: 3,
  generation: 1,
  incarnation: "s1",
  lane: "urgent",
  attempt: 1,
};
const reject: ControlMessageOf<"reject"> = { kind: "reject", code: "cancelled", text: "" };

const opened: { close: () => Promise<void> }[] = [];

afterEach(async () => {
  await Promise.all(opened.splice(0).map((each) => each.close()));
});

async function dest(
  onConnection: (c: ScriptedConnection) => void = () => undefined,
): Promise<ScriptedDest> {
  const scripted = await ScriptedDest.open(onConnection);
  opened.push(scripted);
  return scripted;
}

/** A server that answers every connection with these bytes, or with nothing; its sockets. */
async function rawServer(
  answer: (request: string) => string | Buffer | null,
): Promise<{ url: string; sockets: Socket[] }> {
  const sockets: Socket[] = [];
  const server: Server = createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => undefined);
    socket.once("data", (request) => {
      const bytes = answer(request.toString("latin1"));
      if (bytes !== null) socket.write(bytes);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = async (): Promise<void> => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  };
  opened.push({ close });
  return { url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`, sockets };
}

/** The answer to an upgrade, with bytes of the first frames behind it in the same packet. */
function upgraded(request: string, frames: Buffer): Buffer {
  const key = /sec-websocket-key: (.*)\r\n/i.exec(request)![1]!;
  const accept = createHash("sha1")
    .update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
    .digest("base64");
  const head = [
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    `Sec-WebSocket-Accept: ${accept}`,
  ];
  return Buffer.concat([Buffer.from(`${head.join("\r\n")}\r\n\r\n`), frames]);
}

function dialer(url: string, token: string | null = null): PeerDialer {
  return new PeerDialer({ url, token, tls: null }, new ManualClock());
}

describe("dialling", () => {
  test("a control connection carries messages both ways, and the token", async () => {
    const scripted = await dest((connection) => {
      connection.send(reject);
    });
    const channel = await dialer(scripted.url, "secret").control(never);
    expect(await channel.next("reject")).toEqual(reject);
    channel.send({ kind: "credit", bytes: 5 });
    const [connection] = scripted.connections;
    expect(await connection!.next()).toEqual({ kind: "credit", bytes: 5 });
    expect(connection).toMatchObject({ path: "/v1/peer/control", authorization: "Bearer secret" });
    channel.close(CloseCode.DONE);
    expect(await connection!.closed()).toBe(CloseCode.DONE);
  });

  test("no token means no authorization header", async () => {
    const scripted = await dest();
    await dialer(scripted.url).control(never);
    expect(scripted.connections[0]!.authorization).toBeUndefined();
  });

  test("a message in the same packet as the upgrade is not lost", async () => {
    const message = encodeControl(reject);
    const frame = Buffer.concat([Buffer.of(0x82, message.length), message]);
    const { url } = await rawServer((request) => upgraded(request, frame));
    const channel = await dialer(url).control(never);
    expect(await channel.next("reject")).toEqual(reject);
  });

  test("a broken frame in the same packet as the upgrade ends the channel, not the process", async () => {
    // Reserved bits set, on either kind of connection.
    const { url } = await rawServer((request) => upgraded(request, Buffer.of(0xf2, 0)));
    const channel = await dialer(url).control(never);
    expect(await channel.closed).toMatchObject({ code: "peer-lost" });
    await expect(dialer(url).bulk(bulkHello, never)).rejects.toMatchObject({ code: "peer-lost" });
  });

  test.each([401, 403])("status %i says that the token is wrong", async (status) => {
    const { url } = await rawServer(() => `HTTP/1.1 ${status} No\r\ncontent-length: 0\r\n\r\n`);
    const failed = dialer(url, "wrong").control(never);
    await expect(failed).rejects.toMatchObject({ code: "peer-unauthorized", detail: { url } });
    await expect(failed).rejects.toThrow("VMFERRY_PEER_TOKEN");
    await expect(failed).rejects.not.toThrow("wrong");
  });

  test.each([200, 404, 500, 503])("status %i says that there is no dest agent", async (status) => {
    const { url } = await rawServer(() => `HTTP/1.1 ${status} No\r\ncontent-length: 0\r\n\r\n`);
    const failed = dialer(url).bulk(bulkHello, never);
    await expect(failed).rejects.toMatchObject({ code: "peer-unreachable" });
    await expect(failed).rejects.toThrow(`${status}`);
  });

  test("a redirection is not followed", async () => {
    const elsewhere = await dest();
    const location = `${elsewhere.url.replace("ws:", "http:")}/v1/peer/control`;
    const { url } = await rawServer(
      () => `HTTP/1.1 302 Found\r\nlocation: ${location}\r\ncontent-length: 0\r\n\r\n`,
    );
    await expect(dialer(url, "secret").control(never)).rejects.toMatchObject({
      code: "peer-unreachable",
    });
    expect(elsewhere.connections).toEqual([]);
  });

  test("a port where nobody listens is unreachable", async () => {
    const scripted = await ScriptedDest.open(() => undefined);
    const { url } = scripted;
    await scripted.close();
    await expect(dialer(url).control(never)).rejects.toMatchObject({ code: "peer-unreachable" });
  });

  test("a server that is not HTTP is unreachable", async () => {
    const { url } = await rawServer(() => "SSH-2.0-OpenSSH_9\r\n");
    await expect(dialer(url).control(never)).rejects.toMatchObject({ code: "peer-unreachable" });
  });

  test("an abort ends the wait for a server that never answers", async () => {
    const { url, sockets } = await rawServer(() => null);
    const abort = new AbortController();
    const failed = dialer(url).control(abort.signal);
    const reason = new Error("cancelled by request");
    await expect.poll(() => sockets.length).toBe(1);
    abort.abort(reason);
    await expect(failed).rejects.toBe(reason);
    await expect.poll(() => sockets[0]!.destroyed || sockets[0]!.readableEnded).toBe(true);
  });

  test("an abort that came before dials nobody", async () => {
    const scripted = await dest();
    await expect(
      dialer(scripted.url).control(AbortSignal.abort(new Error("too late"))),
    ).rejects.toThrow("too late");
    expect(scripted.connections).toEqual([]);
  });
});

describe("a bulk connection", () => {
  /** Says what it has, as a dest that was just dialled for the first time. */
  const welcome = (connection: ScriptedConnection): void => {
    connection.send({ kind: "received", received: 0 });
  };

  test("says first whose it is, and then carries frames as they are", async () => {
    const scripted = await dest(welcome);
    const bulk = await dialer(scripted.url).bulk(bulkHello, never);
    const frame = Buffer.from("any bytes, the dest judges them");
    bulk.send(frame);
    const [connection] = scripted.connections;
    expect(connection!.path).toBe("/v1/peer/bulk");
    expect(await connection!.next()).toEqual(bulkHello);
    expect(await connection!.nextBytes()).toEqual(frame);
  });

  test("is there when the dest has said what it has, and hears what comes later", async () => {
    const scripted = await dest((connection) => {
      connection.send({ kind: "received", received: 17 });
    });
    const bulk = await dialer(scripted.url).bulk(bulkHello, never);
    expect(bulk.receivedFrames).toBe(17);
    const counts: number[] = [];
    bulk.onReceived((frames) => counts.push(frames));
    scripted.connections[0]!.send({ kind: "received", received: 20 });
    await expect.poll(() => counts).toEqual([20]);
  });

  test("is not there when the dest does not know the session", async () => {
    const scripted = await dest(({ socket }) => {
      socket.close(CloseCode.SESSION_UNKNOWN);
    });
    await expect(dialer(scripted.url).bulk(bulkHello, never)).rejects.toMatchObject({
      detail: { code: "peer-lost", closeCode: 4005 },
    });
  });

  test("is closed when it is aborted before the dest has answered", async () => {
    const abort = new AbortController();
    const scripted = await dest(() => {
      abort.abort(new Error("cancelled"));
    });
    await expect(dialer(scripted.url).bulk(bulkHello, abort.signal)).rejects.toThrow();
    expect(await scripted.connections[0]!.closed()).not.toBe(null);
  });

  test("ends when the dest sends anything else", async () => {
    const scripted = await dest(welcome);
    const bulk = await dialer(scripted.url).bulk(bulkHello, never);
    scripted.connections[0]!.send({ kind: "credit", bytes: 1 });
    expect(await bulk.closed).toMatchObject({ code: "protocol-violation" });
  });

  test("is lost when nothing is heard of the dest, not even a ping", async () => {
    const scripted = await dest(welcome);
    const clock = new ManualClock();
    const bulk = await new PeerDialer({ url: scripted.url, token: null, tls: null }, clock).bulk(
      bulkHello,
      never,
    );
    scripted.connections[0]!.socket.pause();
    clock.advance(limits.HEARTBEAT_LOST_MS + limits.HEARTBEAT_INTERVAL_MS);
    expect(await bulk.closed).toMatchObject({ detail: { code: "peer-lost", closeCode: null } });
    expect(clock.timerCount).toBe(0);
  });

  test("tells why it ended, with the dest's close code", async () => {
    const scripted = await dest(welcome);
    const bulk = await dialer(scripted.url).bulk(bulkHello, never);
    await scripted.connections[0]!.next();
    scripted.connections[0]!.socket.close(CloseCode.DONE);
    expect(await bulk.closed).toMatchObject({ detail: { code: "peer-lost", closeCode: 4000 } });
  });

  test("ends when the dest is gone without a word", async () => {
    const scripted = await dest(welcome);
    const bulk = await dialer(scripted.url).bulk(bulkHello, never);
    await scripted.connections[0]!.next();
    scripted.connections[0]!.socket.terminate();
    expect(await bulk.closed).toMatchObject({ detail: { code: "peer-lost", closeCode: 1006 } });
  });

  test("tells the dest why we close it", async () => {
    const scripted = await dest(welcome);
    const bulk = await dialer(scripted.url).bulk(bulkHello, never);
    bulk.close(violation("something"));
    expect(await scripted.connections[0]!.closed()).toBe(CloseCode.PROTOCOL_VIOLATION);
  });

  test("takes frames although it is closed", async () => {
    const scripted = await dest(welcome);
    const bulk = await dialer(scripted.url).bulk(bulkHello, never);
    bulk.close();
    await bulk.closed;
    bulk.send(Buffer.alloc(10));
  });

  test("takes nothing large from the dest", async () => {
    const scripted = await dest(welcome);
    const bulk = await dialer(scripted.url).bulk(bulkHello, never);
    await scripted.connections[0]!.next();
    scripted.connections[0]!.socket.send(Buffer.alloc(100_000));
    expect(await bulk.closed).toMatchObject({ code: "peer-lost" });
  });
});

describe("a page lane", () => {
  test("says first what it is, and then carries bytes as they are, both ways", async () => {
    const scripted = await dest();
    const lane = await dialer(scripted.url).pages(pagesHello, never);
    const left = new Promise<void>((resolve) => {
      lane.send(Buffer.from("a frame"), resolve);
    });
    const [connection] = scripted.connections;
    expect(connection!.path).toBe("/v1/peer/pages");
    expect(await connection!.next()).toEqual(pagesHello);
    expect(await connection!.nextBytes()).toEqual(Buffer.from("a frame"));
    await left;
    const heard: string[] = [];
    lane.listen((bytes) => heard.push(bytes.toString()));
    connection!.socket.send(Buffer.from("a message"));
    await expect.poll(() => heard).toEqual(["a message"]);
  });

  test("keeps what comes before anybody listens, and reads no further when that is much", async () => {
    const message = Buffer.alloc(60_000, 7);
    const scripted = await dest(({ socket }) => {
      for (let sent = 0; sent < 200; sent++) socket.send(message);
    });
    const lane = await dialer(scripted.url).pages(pagesHello, never);
    const { socket } = scripted.connections[0]!;
    await scripted.connections[0]!.next();
    await expect.poll(() => socket.bufferedAmount).toBeGreaterThan(0);
    let heard = 0;
    lane.listen((bytes) => {
      expect(bytes.equals(message)).toBe(true);
      heard++;
    });
    expect(heard).toBeLessThan(200);
    await expect.poll(() => heard).toBe(200);
  });

  test("is lost when nothing is heard of the dest, not even a ping, within ten seconds", async () => {
    const scripted = await dest();
    const clock = new ManualClock();
    const lane = await new PeerDialer({ url: scripted.url, token: null, tls: null }, clock).pages(
      pagesHello,
      never,
    );
    scripted.connections[0]!.socket.pause();
    clock.advance(10_000);
    expect(await lane.closed).toMatchObject({ detail: { code: "peer-lost", closeCode: null } });
    expect(clock.timerCount).toBe(0);
  });

  test("tells why it ended, with the dest's close code, and ends with a text message", async () => {
    const scripted = await dest();
    const lane = await dialer(scripted.url).pages(pagesHello, never);
    await scripted.connections[0]!.next();
    scripted.connections[0]!.socket.close(CloseCode.SESSION_UNKNOWN);
    expect(await lane.closed).toMatchObject({ detail: { code: "peer-lost", closeCode: 4005 } });
    const other = await dialer(scripted.url).pages(pagesHello, never);
    scripted.connections[1]!.socket.send("text");
    expect(await other.closed).toMatchObject({ code: "protocol-violation" });
    expect(await scripted.connections[1]!.closed()).toBe(CloseCode.PROTOCOL_VIOLATION);
  });
});
