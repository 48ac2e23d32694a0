// A relay on loopback between the two agents that does to their link what a bad network does: cut
// it, hold it, slow it, let one direction through only, damage or change what passes. It reads the
// WebSocket frames that go by, so a fault can be placed at a message instead of at a moment.

import {
  createConnection,
  createServer,
  type AddressInfo,
  type Server,
  type Socket,
} from "node:net";
import { assert, Deferred } from "@vmferry/core";
import { decodeControl, encodeControl, type ControlMessage } from "@vmferry/protocol";
import { RelayLane, type LaneVerdict } from "./relay-lane.ts";
import { binaryFrame, OpCode, payloadOf, type WirePiece } from "./web-socket-splitter.ts";

export type WireDirection = "to-dest" | "to-source";

/** One message on its way through the proxy. */
export interface PassingMessage {
  readonly direction: WireDirection;
  readonly channel: "control" | "bulk" | "pages" | "blocks";
  /** Counts the messages of this connection and direction from 0. */
  readonly index: number;
  /** What a control message says; null on bulk connections. */
  readonly control: ControlMessage | null;
  readonly payloadBytes: number;
}

type Match = (message: PassingMessage) => boolean;

interface Rule {
  readonly match: Match;
  readonly seen: Deferred<PassingMessage>;
  readonly verdict: (piece: WirePiece & { kind: "frame" }, message: PassingMessage) => LaneVerdict;
}

/** Matches control messages of this kind: `messageOf("prepared")`. */
export function controlOf(kind: ControlMessage["kind"]): Match {
  return ({ control }) => control?.kind === kind;
}

/** Matches the first bulk message from this index on, on its way to the dest; 0 is the hello. */
export function bulkAt(index: number): Match {
  return (message) =>
    message.channel === "bulk" && message.direction === "to-dest" && message.index >= index;
}

/** The same on page lanes; there 0 is the hello as well. */
export function pagesAt(index: number): Match {
  return (message) =>
    message.channel === "pages" && message.direction === "to-dest" && message.index >= index;
}

export class FaultProxy {
  /** Bytes that were let through, by direction. */
  readonly passedBytes: Record<WireDirection, number> = { "to-dest": 0, "to-source": 0 };
  readonly #server: Server;
  readonly #links = new Set<Link>();
  readonly #blocked = new Set<WireDirection>();
  #rules: Rule[] = [];
  #port = 0;
  #delayMs = 0;
  #refusing = false;

  private constructor() {
    this.#server = createServer((socket) => {
      this.#accept(socket);
    });
  }

  static async open(): Promise<FaultProxy> {
    const proxy = new FaultProxy();
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once("error", reject);
      proxy.#server.listen(0, "127.0.0.1", resolve);
    });
    return proxy;
  }

  /** What the source dials, as `LabOptions.peerUrl`: connections go on to the dest's `port`. */
  towards(port: number): string {
    this.#port = port;
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Everything that passes from now on does so this much later. */
  set delayMs(ms: number) {
    this.#delayMs = ms;
  }

  /** Ends every connection at once, as a firewall that begins to reject does, and refuses new ones. */
  cut(): void {
    this.#refusing = true;
    this.#reset();
  }

  /** Ends every connection at once; new ones are let through. */
  cutOnce(): void {
    this.#reset();
  }

  /** Connections stay, nothing passes: neither side is told. */
  block(...directions: readonly WireDirection[]): void {
    for (const direction of directions.length === 0 ? BOTH : directions) {
      this.#blocked.add(direction);
    }
    for (const link of this.#links) link.update();
  }

  /** Holds connections at this message; it and what follows in its direction waits for `restore`. */
  hold(match: Match): Promise<PassingMessage> {
    return this.#once(match, () => ({ kind: "hold" }));
  }

  /** Flips one bit of the message's payload; a negative offset counts from its end. */
  corrupt(match: Match, offset: number): Promise<PassingMessage> {
    return this.#once(match, ({ bytes, payloadOffset }, { payloadBytes }) => {
      const at = offset < 0 ? payloadBytes + offset : offset;
      assert(at >= 0 && at < payloadBytes, "the byte to damage is part of the message");
      const damaged = Buffer.from(bytes);
      damaged[payloadOffset + at]! ^= 0x10;
      return { kind: "pass", bytes: damaged };
    });
  }

  /** Lets `bytes` of the message through and ends every connection there, in good order. */
  truncate(match: Match, bytes: number): Promise<PassingMessage> {
    return this.#once(match, (piece) => ({
      kind: "pass",
      bytes: piece.bytes.subarray(0, bytes),
      after: () => {
        this.#refusing = true;
        for (const link of this.#links) link.end();
      },
    }));
  }

  /** Puts another control message into the place of the one that matches. */
  replace(
    match: Match,
    change: (message: ControlMessage) => ControlMessage,
  ): Promise<PassingMessage> {
    return this.#once(match, ({ mask }, { control }) => {
      assert(control !== null, "only control messages can be replaced");
      const payload = encodeControl(change(control));
      return { kind: "pass", bytes: binaryFrame(payload, { masked: mask !== null }) };
    });
  }

  /** Resolves when a message that matches passes unharmed. */
  seen(match: Match): Promise<PassingMessage> {
    return this.#once(match, ({ bytes }) => ({ kind: "pass", bytes }));
  }

  /** A good link again: what was held goes on in its order. Rules that nothing met are dropped. */
  restore(): void {
    this.#rules = [];
    this.#refusing = false;
    this.#delayMs = 0;
    this.#blocked.clear();
    for (const link of this.#links) link.release();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
  }

  #once(match: Match, verdict: Rule["verdict"]): Promise<PassingMessage> {
    const seen = new Deferred<PassingMessage>();
    this.#rules.push({ match, seen, verdict });
    return seen.promise;
  }

  #reset(): void {
    for (const link of this.#links) link.reset();
  }

  #accept(socket: Socket): void {
    if (this.#refusing) {
      socket.resetAndDestroy();
      return;
    }
    const dest = createConnection(this.#port, "127.0.0.1");
    const link = new Link(socket, dest, {
      judge: (piece, message) => this.#judge(piece, message),
      passed: (direction, bytes) => (this.passedBytes[direction] += bytes),
      blocked: (direction) => this.#blocked.has(direction),
      delayMs: () => this.#delayMs,
    });
    this.#links.add(link);
    link.onClosed = () => this.#links.delete(link);
  }

  #judge(piece: WirePiece & { kind: "frame" }, message: PassingMessage): LaneVerdict {
    const rule = this.#rules.find(({ match }) => match(message));
    if (rule === undefined) return { kind: "pass", bytes: piece.bytes };
    this.#rules = this.#rules.filter((other) => other !== rule);
    const verdict = rule.verdict(piece, message);
    rule.seen.resolve(message);
    return verdict;
  }
}

const BOTH: readonly WireDirection[] = ["to-dest", "to-source"];

interface LinkPorts {
  readonly judge: Rule["verdict"];
  readonly passed: (direction: WireDirection, bytes: number) => void;
  readonly blocked: (direction: WireDirection) => boolean;
  readonly delayMs: () => number;
}

/** One connection of the source and the one that was opened for it to the dest. */
class Link {
  onClosed: () => void = () => undefined;
  readonly #sockets: readonly Socket[];
  readonly #lanes: readonly RelayLane[];
  #channel: PassingMessage["channel"] = "control";

  constructor(source: Socket, dest: Socket, ports: LinkPorts) {
    this.#sockets = [source, dest];
    this.#lanes = [
      this.#lane("to-dest", { from: source, to: dest }, ports),
      this.#lane("to-source", { from: dest, to: source }, ports),
    ];
    for (const socket of this.#sockets) {
      socket.setNoDelay(true);
      socket.once("close", () => {
        if (this.#sockets.every(({ destroyed }) => destroyed)) this.onClosed();
      });
    }
  }

  update(): void {
    for (const lane of this.#lanes) lane.update();
  }

  release(): void {
    for (const lane of this.#lanes) lane.release();
  }

  reset(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** What was written still arrives, unlike with `reset`. */
  end(): void {
    for (const socket of this.#sockets) socket.destroySoon();
  }

  #lane(
    direction: WireDirection,
    ends: { readonly from: Socket; readonly to: Socket },
    ports: LinkPorts,
  ): RelayLane {
    let index = 0;
    return new RelayLane({
      ...ends,
      blocked: () => ports.blocked(direction),
      delayMs: ports.delayMs,
      passed: (bytes) => {
        ports.passed(direction, bytes);
      },
      judge: (piece) => {
        if (piece.kind === "handshake") {
          if (piece.bytes.includes("/v1/peer/bulk")) this.#channel = "bulk";
          if (piece.bytes.includes("/v1/peer/pages")) this.#channel = "pages";
          if (piece.bytes.includes("/v1/peer/blocks")) this.#channel = "blocks";
          return { kind: "pass", bytes: piece.bytes };
        }
        if (piece.opcode !== OpCode.BINARY) return { kind: "pass", bytes: piece.bytes };
        const message = describe(piece, { direction, channel: this.#channel, index: index++ });
        return ports.judge(piece, message);
      },
    });
  }
}

function describe(
  piece: WirePiece & { kind: "frame" },
  where: Pick<PassingMessage, "direction" | "channel" | "index">,
): PassingMessage {
  const payloadBytes = piece.bytes.length - piece.payloadOffset;
  // The first message of a bulk connection is a control message too, and that of a page lane.
  const isHello = where.index === 0 && (where.channel === "bulk" || where.direction === "to-dest");
  const isControl = where.channel === "control" || isHello;
  return { ...where, payloadBytes, control: isControl ? decodeControl(payloadOf(piece)) : null };
}
