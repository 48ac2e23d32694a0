/** TLS between the agents' own dialer and listener, over real sockets of this host. */
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect as connectPlain, type Socket } from "node:net";
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from "node:tls";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { WebSocket } from "ws";
import { PeerTls, type ControlChannel } from "../../packages/agent/src/index.ts";
import { systemClock } from "@vmferry/core";
import { CloseCode, limits, type ControlMessageOf } from "@vmferry/protocol";
import { TlsDirectory } from "@vmferry/testkit";
import { PeerListener } from "../../packages/dest-agent/src/adapters/peer-listener.ts";
import { admitBulk, type BulkLink } from "../../packages/dest-agent/src/session/bulk-link.ts";
import { PeerDialer } from "../../packages/source-agent/src/adapters/peer-dialer.ts";

const never = new AbortController().signal;
const secret = "5e".repeat(32);
const bulkHello: ControlMessageOf<"bulk-hello"> = {
  kind: "bulk-hello",
  version: limits.PROTOCOL_VERSION,
  migrationId: "m1",
  session: secret,
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
  attempt: 7,
};

let sourceFiles: TlsDirectory;
let destFiles: TlsDirectory;
let channels: ControlChannel[];
let bulkLinks: BulkLink[];
let lanes: WebSocket[];
let strangers: string[];
let listener: PeerListener | null;
const clients: Socket[] = [];

beforeEach(async () => {
  [sourceFiles, destFiles] = await Promise.all([TlsDirectory.make(), TlsDirectory.make()]);
  listener = null;
  [channels, bulkLinks, lanes, strangers] = [[], [], [], []];
});

afterEach(async () => {
  vi.unstubAllEnvs();
  for (const client of clients.splice(0)) client.destroy();
  await listener?.close();
  await Promise.all([sourceFiles.remove(), destFiles.remove()]);
});

/** Starts a dest with what is in its directory by now, or without TLS. */
async function listen(
  tls: PeerTls | null = new PeerTls(destFiles.path, "server"),
  token: string | null = null,
): Promise<PeerTls | null> {
  listener = await PeerListener.open({
    host: "127.0.0.1",
    port: 0,
    token,
    tls,
    clock: systemClock,
    onControl: (channel) => channels.push(channel),
    onBulk: (socket) => {
      admitBulk(socket, systemClock, () => ({
        secret,
        bulkConnections: 1,
        attach: (_index, link) => void bulkLinks.push(link),
      }));
    },
    onPages: (socket) => lanes.push(socket),
    onBlocks: () => undefined,
    onStranger: ({ reason }) => strangers.push(reason),
  });
  return tls;
}

function url(scheme = "wss", host = "127.0.0.1"): string {
  return `${scheme}://${host}:${listener!.port}`;
}

function dialer(
  tls: PeerTls | null = new PeerTls(sourceFiles.path, "client"),
  { to = url(), token = null as string | null } = {},
): PeerDialer {
  return new PeerDialer({ url: to, token, tls }, systemClock);
}

/** What the operator gets to see. */
async function refusal(dialling: PeerDialer): Promise<string> {
  return dialling.control(never).then(
    () => expect.unreachable(),
    (error: unknown) => {
      expect(error).toMatchObject({ code: "peer-unreachable" });
      return (error as Error).message;
    },
  );
}

/** Whoever comes with these options; resolves when TLS is agreed on, or with the error's code. */
async function stranger(options: ConnectionOptions): Promise<TLSSocket | string> {
  const socket = connectTls({
    ...{ host: "127.0.0.1", port: listener!.port, rejectUnauthorized: false },
    ...options,
  });
  clients.push(socket);
  return new Promise((resolve) => {
    socket.on("error", (error: NodeJS.ErrnoException) => {
      resolve(error.code!);
    });
    socket.once("secureConnect", () => {
      resolve(socket);
    });
  });
}

/** All that a stranger hears of the dest who speaks after the handshake. */
async function answerTo(options: ConnectionOptions): Promise<string> {
  const socket = (await stranger(options)) as TLSSocket;
  let heard = "";
  socket.on("data", (bytes: Buffer) => (heard += bytes.toString("latin1")));
  const closed = new Promise<void>((resolve) => {
    if (socket.closed) resolve();
    else
      socket.once("close", () => {
        resolve();
      });
  });
  socket.write("GET /v1/peer/control HTTP/1.1\r\nHost: x\r\n\r\n");
  await closed;
  return heard;
}

describe("agents with certificates of one authority", () => {
  test.each(["127.0.0.1", "localhost"])("talk on every lane, by the name %s", async (host) => {
    await listen();
    const source = dialer(undefined, { to: url("wss", host) });
    const channel = await source.control(never);
    channel.send({ kind: "credit", bytes: 7 });
    await expect.poll(() => channels.length).toBe(1);
    expect(await channels[0]!.next("credit")).toEqual({ kind: "credit", bytes: 7 });

    const attached = source.bulk(bulkHello, never);
    await expect.poll(() => bulkLinks.length).toBe(1);
    const frames: Buffer[] = [];
    bulkLinks[0]!.listen(
      (frame) => frames.push(Buffer.from(frame)),
      () => undefined,
    );
    bulkLinks[0]!.send({ kind: "received", received: 0 });
    const bulk = await attached;
    const frame = Buffer.alloc(limits.FRAME_BYTES_MAX, 0xa5);
    bulk.send(frame);
    await expect.poll(() => frames.length).toBe(1);
    expect(frames[0]!.equals(frame)).toBe(true);

    const lane = await source.pages(pagesHello, never);
    await expect.poll(() => lanes.length).toBe(1);
    const said = once(lanes[0]!, "message");
    lane.send(Buffer.from("a page message"), () => undefined);
    await said;
    for (const end of [channel, bulk, lane]) end.close(CloseCode.DONE);
    expect(strangers).toEqual([]);
  });

  test("trust what an intermediate one has signed, where its certificate comes along", async () => {
    await sourceFiles.put("client", "chained-client");
    await destFiles.put("server", "chained-server");
    await listen();
    (await dialer().control(never)).close(CloseCode.DONE);
  });

  test("speak TLS 1.3, and nothing older", async () => {
    await listen();
    const { cert, key, ca } = new PeerTls(sourceFiles.path, "client").options;
    const current = await stranger({ cert, key, ca });
    expect((current as TLSSocket).getProtocol()).toBe("TLSv1.3");
    expect(await stranger({ cert, key, ca, maxVersion: "TLSv1.2" })).toMatch(/PROTOCOL_VERSION/);
    await expect.poll(() => strangers).toEqual(["it does not speak TLS 1.3"]);
  });

  test("show their certificates with each connection: no session is resumed", async () => {
    const tls = (await listen())!;
    const { cert, key, ca } = new PeerTls(sourceFiles.path, "client").options;
    for (const change of [
      (): void => undefined,
      (): void => {
        tls.reload();
      },
    ]) {
      change();
      const sessions: Buffer[] = [];
      const first = (await stranger({ cert, key, ca })) as TLSSocket;
      first.on("session", (session) => sessions.push(session));
      const ended = once(first.resume(), "close");
      first.end("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
      await ended;
      const session = sessions.at(-1) ?? first.getSession();
      const again = (await stranger({ cert, key, ca, session })) as TLSSocket;
      expect(again.isSessionReused()).toBe(false);
    }
  });

  test("still need the token where one is set", async () => {
    await listen(undefined, "a-secret");
    await expect(dialer().control(never)).rejects.toMatchObject({ code: "peer-unauthorized" });
    const channel = await dialer(undefined, { token: "a-secret" }).control(never);
    channel.close(CloseCode.DONE);
  });
});

describe("a source does not talk to", () => {
  test.each([
    [
      "of another authority",
      "other-server",
      "other-ca-cert",
      /not of the authority in ca-cert\.pem/,
    ],
    ["for another name", "elsewhere-server", "ca-cert", /does not name 127\.0\.0\.1: issue it/],
    [
      "that has expired",
      "expired-server",
      "ca-cert",
      /has expired: replace it there and send SIGHUP/,
    ],
  ])("a dest with a certificate %s", async (_, server, ca, expected) => {
    await destFiles.put("server", server);
    await destFiles.put("ca-cert", ca);
    await listen();
    expect(await refusal(dialer())).toMatch(expected);
    expect(channels).toEqual([]);
  });

  test("a dest of another authority, whatever the environment says to Node", async () => {
    vi.stubEnv("NODE_TLS_REJECT_UNAUTHORIZED", "0");
    await destFiles.put("server", "other-server");
    await destFiles.put("ca-cert", "other-ca-cert");
    await listen();
    expect(await refusal(dialer())).toMatch(/not of the authority in ca-cert\.pem/);
  });

  test("a dest without TLS", async () => {
    await listen(null);
    expect(await refusal(dialer())).toMatch(/does not speak TLS 1\.3: set VMFERRY_TLS_DIR there/);
  });

  test("anybody once its own certificate has expired", async () => {
    await listen();
    await sourceFiles.put("client", "expired-client");
    expect(await refusal(dialer())).toMatch(
      /client-cert\.pem has expired at .* send SIGHUP to this/,
    );
  });
});

describe("a dest does not let in", () => {
  test.each([
    ["of another authority", "other-client", /not of the authority in ca-cert\.pem here/],
    ["that has expired", "expired-client", /has expired: replace it there and send SIGHUP/],
    ["that is for servers", "server", /not meant for this side/],
  ])("a client with a certificate %s", async (_, name, expected) => {
    await listen();
    await sourceFiles.put("client", name);
    const [cert, key] = await Promise.all(
      ["cert", "key"].map((part) => readFile(`${sourceFiles.path}/client-${part}.pem`)),
    );
    expect(await answerTo({ cert, key })).toBe("");
    await expect.poll(() => strangers[0]).toMatch(expected);
  });

  test("somebody without a certificate, and says nothing to them", async () => {
    await listen();
    expect(await answerTo({})).toBe("");
    await expect.poll(() => strangers[0]).toMatch(/shows no certificate/);
  });

  test("a source without TLS, which is told what to set", async () => {
    await listen();
    const message = await refusal(dialer(null, { to: url("ws") }));
    expect(message).toMatch(/if it has VMFERRY_TLS_DIR, set it here too and name it wss:\/\//);
    await expect.poll(() => strangers[0]).toMatch(/speaks without TLS/);
  });

  test("a source of another authority, which is told where to look", async () => {
    await listen();
    await sourceFiles.put("client", "other-client");
    await sourceFiles.put("ca-cert", "other-ca-cert");
    const trusting = new PeerTls(sourceFiles.path, "client");
    const { ca } = new PeerTls(destFiles.path, "server").options;
    // It knows the dest's authority, and not the other way round.
    Object.defineProperty(trusting, "options", { value: { ...trusting.options, ca } });
    expect(await refusal(dialer(trusting))).toMatch(
      /if its log says that this agent's certificate/,
    );
  });
});

describe("reading certificates again", () => {
  test("changes what the next connection sees, and no connection that is open", async () => {
    const tls = (await listen())!;
    const open = await dialer().control(never);
    const before = await servedSerial();
    await destFiles.put("server", "renewed-server");
    tls.reload();
    expect(await servedSerial()).not.toBe(before);
    await expect.poll(() => channels.length).toBe(1);
    open.send({ kind: "credit", bytes: 9 });
    expect(await channels[0]!.next("credit")).toEqual({ kind: "credit", bytes: 9 });
    open.close(CloseCode.DONE);
  });

  test("with another authority locks the old clients out", async () => {
    const tls = (await listen())!;
    await destFiles.put("server", "other-server");
    await destFiles.put("ca-cert", "other-ca-cert");
    tls.reload();
    expect(await refusal(dialer())).toMatch(/not of the authority/);
    await sourceFiles.put("client", "other-client");
    await sourceFiles.put("ca-cert", "other-ca-cert");
    const channel = await dialer().control(never);
    channel.close(CloseCode.DONE);
  });

  test("at the source counts for the next connection of the same dialer", async () => {
    await listen();
    await sourceFiles.put("client", "expired-client");
    const tls = new PeerTls(sourceFiles.path, "client");
    const source = dialer(tls);
    expect(await refusal(source)).toMatch(/has expired/);
    await sourceFiles.put("client", "client");
    tls.reload();
    const channel = await source.control(never);
    channel.close(CloseCode.DONE);
  });

  async function servedSerial(): Promise<string> {
    const { cert, key, ca } = new PeerTls(sourceFiles.path, "client").options;
    const socket = (await stranger({ cert, key, ca })) as TLSSocket;
    return socket.getPeerCertificate().serialNumber;
  }
});

test("closing ends also who is still silent in the handshake", async () => {
  await listen();
  const silent = connectPlain(listener!.port, "127.0.0.1");
  clients.push(silent);
  silent.on("error", () => undefined);
  await once(silent, "connect");
  const open = await dialer().control(never);
  await listener!.close();
  expect(await open.closed).toMatchObject({ code: "peer-lost" });
  if (!silent.closed) await once(silent.resume(), "close");
  listener = null;
});
