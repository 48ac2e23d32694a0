import {
  createConnection,
  createServer,
  type AddressInfo,
  type Server,
  type Socket,
} from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { encodeControl, type ControlMessage } from "@vmferry/protocol";
import { bulkAt, controlOf, FaultProxy } from "./fault-proxy.ts";
import {
  binaryFrame,
  payloadOf,
  WebSocketSplitter,
  type WirePiece,
} from "./web-socket-splitter.ts";

const TIMEOUT = { timeout: 5000 };
const CREDIT: ControlMessage = { kind: "credit", bytes: 1 };
const REJECT: ControlMessage = { kind: "reject", code: "peer-refused", text: "no" };

/** One end of a connection: what it received, and whether it is over. */
class End {
  readonly socket: Socket;
  readonly pieces: WirePiece[] = [];
  receivedBytes = 0;
  closed = false;

  constructor(socket: Socket) {
    this.socket = socket;
    const splitter = new WebSocketSplitter((piece) => this.pieces.push(piece));
    socket.on("data", (chunk) => {
      this.receivedBytes += chunk.length;
      splitter.push(chunk);
    });
    socket.on("error", () => undefined);
    socket.on("close", () => (this.closed = true));
  }

  get payloads(): Buffer[] {
    return this.pieces.flatMap((piece) => (piece.kind === "frame" ? [payloadOf(piece)] : []));
  }

  send(message: ControlMessage | Buffer, masked = false): void {
    const payload = Buffer.isBuffer(message) ? message : encodeControl(message);
    this.socket.write(binaryFrame(payload, { masked }));
  }
}

describe("FaultProxy", () => {
  let proxy: FaultProxy;
  let server: Server;
  let url: string;
  let accepted: End[] = [];
  let dialled: End[] = [];

  beforeEach(async () => {
    accepted = [];
    dialled = [];
    server = createServer((socket) => {
      const end = new End(socket);
      accepted.push(end);
      socket.once("data", () => socket.write("HTTP/1.1 101 Switching Protocols\r\n\r\n"));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    proxy = await FaultProxy.open();
    url = proxy.towards((server.address() as AddressInfo).port);
  });
  afterEach(async () => {
    for (const { socket } of [...accepted, ...dialled]) socket.destroy();
    await proxy.close();
    server.close();
  });

  /** A connection with its handshake behind it. */
  const connect = async (channel = "control"): Promise<{ source: End; dest: End }> => {
    const source = new End(createConnection(Number(new URL(url).port), "127.0.0.1"));
    dialled.push(source);
    const before = accepted.length;
    source.socket.write(`GET /v1/peer/${channel} HTTP/1.1\r\n\r\n`);
    await expect.poll(() => source.pieces.length, TIMEOUT).toBe(1);
    return { source, dest: accepted[before]! };
  };

  it("lets everything pass both ways, and counts it", async () => {
    const { source, dest } = await connect();
    const before = proxy.passedBytes["to-dest"];
    source.send(CREDIT, true);
    dest.send(REJECT);
    await expect.poll(() => dest.payloads, TIMEOUT).toEqual([encodeControl(CREDIT)]);
    await expect.poll(() => source.payloads, TIMEOUT).toEqual([encodeControl(REJECT)]);
    const frameBytes = 2 + 4 + encodeControl(CREDIT).length;
    expect(proxy.passedBytes["to-dest"] - before).toBe(frameBytes);
  });

  it("holds a message and what follows it, and lets it go in order", async () => {
    const { source, dest } = await connect();
    const held = proxy.hold(controlOf("reject"));
    dest.send(CREDIT);
    dest.send(REJECT);
    dest.send(CREDIT);
    source.send(CREDIT, true);
    expect(await held).toMatchObject({ direction: "to-source", channel: "control", index: 1 });
    await expect.poll(() => dest.payloads, TIMEOUT).toHaveLength(1);
    expect(source.payloads).toEqual([encodeControl(CREDIT)]);
    proxy.restore();
    await expect
      .poll(() => source.payloads, TIMEOUT)
      .toEqual([CREDIT, REJECT, CREDIT].map((message) => encodeControl(message)));
  });

  it("blocks one direction only, and drops nothing", async () => {
    const { source, dest } = await connect();
    proxy.block("to-dest");
    source.send(CREDIT, true);
    dest.send(REJECT);
    await expect.poll(() => source.payloads, TIMEOUT).toHaveLength(1);
    expect(dest.payloads).toEqual([]);
    proxy.restore();
    await expect.poll(() => dest.payloads, TIMEOUT).toEqual([encodeControl(CREDIT)]);
  });

  it("cuts what there is and refuses what comes, until it is restored", async () => {
    const { source, dest } = await connect();
    proxy.cut();
    await expect.poll(() => source.closed && dest.closed, TIMEOUT).toBe(true);
    const late = new End(createConnection(Number(new URL(url).port), "127.0.0.1"));
    dialled.push(late);
    await expect.poll(() => late.closed, TIMEOUT).toBe(true);
    proxy.restore();
    await connect();
  });

  it("flips one bit of the bulk message that was meant", async () => {
    const { source, dest } = await connect("bulk");
    const corrupted = proxy.corrupt(bulkAt(2), -1);
    source.send(CREDIT, true);
    const sent = [1, 2, 3].map((fill) => Buffer.alloc(1000, fill));
    for (const payload of sent) source.send(payload, true);
    expect(await corrupted).toMatchObject({ channel: "bulk", index: 2, payloadBytes: 1000 });
    await expect.poll(() => dest.payloads, TIMEOUT).toHaveLength(4);
    const [, first, second, third] = dest.payloads;
    expect([first, third]).toEqual([sent[0], sent[2]]);
    expect(second!.subarray(0, -1)).toEqual(sent[1]!.subarray(0, -1));
    expect(second!.at(-1)).not.toBe(2);
  });

  it("ends all connections amid a message", async () => {
    const { source, dest } = await connect("bulk");
    const other = await connect();
    const handshakeBytes = dest.receivedBytes;
    const truncated = proxy.truncate(bulkAt(1), 500);
    source.send(CREDIT, true);
    source.send(Buffer.alloc(1000, 1), true);
    await truncated;
    await expect.poll(() => dest.closed && other.dest.closed, TIMEOUT).toBe(true);
    const helloBytes = 6 + encodeControl(CREDIT).length;
    expect(dest.receivedBytes - handshakeBytes).toBe(helloBytes + 500);
  });

  it("replaces a control message", async () => {
    const { source, dest } = await connect();
    const replaced = proxy.replace(controlOf("credit"), () => REJECT);
    source.send(CREDIT, true);
    source.send(CREDIT, true);
    await replaced;
    await expect
      .poll(() => dest.payloads, TIMEOUT)
      .toEqual([REJECT, CREDIT].map((message) => encodeControl(message)));
  });

  it("delays what passes, in order", async () => {
    const { source, dest } = await connect();
    proxy.delayMs = 200;
    const sentMs = performance.now();
    source.send(CREDIT, true);
    source.send(REJECT, true);
    await expect.poll(() => dest.payloads, { ...TIMEOUT, interval: 5 }).toHaveLength(2);
    expect(performance.now() - sentMs).toBeGreaterThanOrEqual(199);
    expect(dest.payloads).toEqual([CREDIT, REJECT].map((message) => encodeControl(message)));
  });

  it("tells either end that the other has gone", async () => {
    const { source, dest } = await connect();
    source.socket.destroy();
    await expect.poll(() => dest.closed, TIMEOUT).toBe(true);
    const second = await connect();
    second.dest.socket.end();
    await expect.poll(() => second.source.closed, TIMEOUT).toBe(true);
  });
});
