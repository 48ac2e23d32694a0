// A client for tests that says exactly what it is told to say. It builds and takes apart its
// bytes by itself, without the codec under test.

import { once } from "node:events";
import { createConnection, type Socket } from "node:net";

export interface OptionAnswer {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

export interface RequestFields {
  readonly command: number;
  readonly flags?: number;
  readonly cookie?: bigint;
  readonly offset?: bigint | number;
  readonly length?: number;
  readonly payload?: Buffer;
}

export type Reply =
  | { readonly kind: "simple"; readonly errno: number; readonly cookie: bigint }
  | {
      readonly kind: "chunk";
      readonly flags: number;
      readonly type: number;
      readonly cookie: bigint;
      readonly payload: Buffer;
    };

export interface HandshakeWishes {
  readonly name?: string;
  readonly structured?: boolean;
  readonly blockStatus?: boolean;
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: bigint | number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

export function lengthAndText(text: string | Buffer): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([u32(bytes.length), bytes]);
}

export function rawOption(option: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([Buffer.from("IHAVEOPT"), u32(option), u32(data.length), data]);
}

/** Data of INFO and GO. */
export function rawInfoData(name: string | Buffer, ...infoTypes: readonly number[]): Buffer {
  return Buffer.concat([lengthAndText(name), u16(infoTypes.length), ...infoTypes.map(u16)]);
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function rawMetaData(name: string | Buffer, ...queries: readonly string[]): Buffer {
  return Buffer.concat([
    lengthAndText(name),
    u32(queries.length),
    ...queries.map((query) => lengthAndText(query)),
  ]);
}

export function rawRequest(fields: RequestFields): Buffer {
  const payload = fields.payload ?? Buffer.alloc(0);
  return Buffer.concat([
    Buffer.from("25609513", "hex"),
    u16(fields.flags ?? 0),
    u16(fields.command),
    u64(fields.cookie ?? 0n),
    u64(fields.offset ?? 0),
    u32(fields.length ?? payload.length),
    payload,
  ]);
}

/** Everything that a client says until its GO is answered. */
export function rawHandshake(wishes: HandshakeWishes = {}): Buffer {
  const name = wishes.name ?? "";
  return Buffer.concat([
    u32(3),
    ...((wishes.structured ?? wishes.blockStatus) ? [rawOption(8)] : []),
    ...(wishes.blockStatus ? [rawOption(10, rawMetaData(name, "base:allocation"))] : []),
    rawOption(7, rawInfoData(name)),
  ]);
}

export class RawNbdClient {
  readonly socket: Socket;
  /** Resolves when the connection is closed, by whomever. */
  readonly closed: Promise<void>;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  #isOver = false;
  #wake: () => void = () => undefined;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => undefined);
    socket.on("data", (chunk) => {
      this.#received.push(chunk);
      this.#receivedBytes += chunk.length;
      this.#wake();
    });
    socket.on("end", () => {
      this.#isOver = true;
      this.#wake();
    });
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        this.#isOver = true;
        this.#wake();
        resolve();
      });
    });
  }

  static async connect(path: string): Promise<RawNbdClient> {
    const socket = createConnection({ path });
    await once(socket, "connect");
    return new RawNbdClient(socket);
  }

  /** Connected, and in transmission. */
  static async attach(path: string, wishes: HandshakeWishes = {}): Promise<RawNbdClient> {
    const client = await RawNbdClient.connect(path);
    await client.handshake(wishes);
    return client;
  }

  send(...parts: readonly Buffer[]): void {
    for (const part of parts) this.socket.write(part);
  }

  /** Rejects when the connection ends before. For one caller at a time. */
  async receive(length: number): Promise<Buffer> {
    while (this.#receivedBytes < length) {
      if (this.#isOver) throw new Error("the connection ended");
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const all = Buffer.concat(this.#received);
    this.#received = [all.subarray(length)];
    this.#receivedBytes = all.length - length;
    return all.subarray(0, length);
  }

  async handshake(wishes: HandshakeWishes = {}): Promise<void> {
    await this.receive(18);
    this.send(rawHandshake(wishes));
    for (;;) {
      const { option, type } = await this.optionReply();
      if (type >= 0x8000_0000) throw new Error(`option ${option} was refused`);
      if (option === 7 && type === 1) return;
    }
  }

  async optionReply(): Promise<OptionAnswer> {
    const header = await this.receive(20);
    if (header.readBigUInt64BE(0) !== 0x3e889045565a9n) throw new Error("magic of an option reply");
    const data = await this.receive(header.readUInt32BE(16));
    return { option: header.readUInt32BE(8), type: header.readUInt32BE(12), data };
  }

  /** Every reply to one option; the last is an acknowledgement or an error. */
  async option(option: number, data?: Buffer): Promise<OptionAnswer[]> {
    this.send(rawOption(option, data));
    const answers: OptionAnswer[] = [];
    for (;;) {
      const answer = await this.optionReply();
      answers.push(answer);
      if (answer.type === 1 || answer.type >= 0x8000_0000) return answers;
    }
  }

  request(fields: RequestFields): void {
    this.send(rawRequest(fields));
  }

  /** The data of a simple reply to READ are the caller's to receive. */
  async reply(): Promise<Reply> {
    const magic = (await this.receive(4)).toString("hex");
    if (magic === "67446698") {
      const rest = await this.receive(12);
      return { kind: "simple", errno: rest.readUInt32BE(0), cookie: rest.readBigUInt64BE(4) };
    }
    if (magic !== "668e33ef") throw new Error(`magic of a reply: ${magic}`);
    const rest = await this.receive(16);
    return {
      kind: "chunk",
      flags: rest.readUInt16BE(0),
      type: rest.readUInt16BE(2),
      cookie: rest.readBigUInt64BE(4),
      payload: await this.receive(rest.readUInt32BE(12)),
    };
  }

  /** Sends a request and resolves with the error of its reply, 0 for none. */
  async ask(fields: RequestFields): Promise<number> {
    this.request(fields);
    const reply = await this.reply();
    if (reply.kind === "simple") return reply.errno;
    return reply.type >= 0x8000 ? reply.payload.readUInt32BE(0) : 0;
  }

  end(): void {
    this.socket.destroy();
  }
}
