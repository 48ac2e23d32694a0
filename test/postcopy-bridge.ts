// A guest's memory by post-copy through the codec at both ends, as two agents would carry it: what
// the source's QEMU sends is decoded and encoded anew for the dest's, what the dest's answers goes
// back the same way. There is no link in between, no hash and no hand-over.
//
//   SQ ═main═▶ StreamDecoder ─▶ RamEncoder ═▶ DQ          DQ ─▶ ReturnPathDecoder ─▶ encode ─▶ SQ
//   SQ ═requested═▶ PreemptDecoder ─▶ RamEncoder ═▶ DQ

import { rm } from "node:fs/promises";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { assert, Deferred } from "@vmferry/core";
import {
  COMMAND,
  encodeRecvBitmap,
  encodeResumeAck,
  encodeReturnPath,
  PAGE_BYTES,
  pageRequestOf,
  PreemptDecoder,
  RamEncoder,
  receivedBitmapBytes,
  ReturnPathDecoder,
  StreamDecoder,
  type RamRecordHandler,
  type RamSection,
  type ReturnPathMessage,
  type StreamHandler,
} from "@vmferry/qemu";

const BITMAP_BYTES_MAX = 2 ** 20;
const OUTSTANDING_BYTES_MAX = 2 ** 20;

export interface BridgeOptions {
  /** Where the source's QEMU is told to migrate to, and where the dest's listens. */
  readonly sourceSocket: string;
  readonly destSocket: string;
  /** A connection that takes up the post-copy of this bridge, at the same or at a fresh dest. */
  readonly takesUp?: { readonly bridge: PostcopyBridge; readonly freshDest: boolean };
}

interface PageKey {
  readonly block: number;
  readonly page: number;
}

export class PostcopyBridge {
  /** All but pages that the dest's QEMU was given before END: enough for a fresh one. */
  readonly kept: Buffer[] = [];
  section: RamSection = { sectionId: 0, blocks: [] };
  /** Pages behind the package, by the connection that they came on. */
  readonly counts = { main: 0, requested: 0, twice: 0 };
  /** From a request to its page's way into QEMU. */
  readonly answeredMs: number[] = [];
  readonly pongs: number[] = [];
  /** SHUT of the dest's QEMU; rejects with whatever was not understood. */
  readonly shut = new Deferred<number>();
  readonly #options: BridgeOptions;
  readonly #sockets: Socket[] = [];
  readonly #placed = new Set<string>();
  readonly #askedMs = new Map<string, number>();
  #server: Server | null = null;
  #hasMain = false;
  #postcopy: boolean;

  private constructor(options: BridgeOptions) {
    this.#options = options;
    this.#postcopy = options.takesUp !== undefined;
    if (options.takesUp !== undefined) this.section = options.takesUp.bridge.section;
  }

  static async open(options: BridgeOptions): Promise<PostcopyBridge> {
    const bridge = new PostcopyBridge(options);
    await rm(options.sourceSocket, { force: true });
    const server = createServer((source) => {
      if (!bridge.#hasMain) bridge.#joinMain(source);
      else bridge.#joinRequested(source);
    });
    bridge.#server = server;
    await new Promise<void>((resolve) => server.listen(options.sourceSocket, resolve));
    return bridge;
  }

  /** Cuts all connections at once. */
  close(): void {
    this.#server?.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #joinMain(source: Socket): void {
    const { takesUp } = this.#options;
    this.#hasMain = true;
    const dest = this.#connect(source);
    if (takesUp?.freshDest === true) dest.write(Buffer.concat(takesUp.bridge.kept));
    const resumed = takesUp === undefined ? null : this.section;
    const forward = new StreamDecoder(this.#mainHandler(source, dest), {}, resumed);
    this.#carry(source, dest, (chunk) => {
      forward.push(chunk);
    });
    const limits = { bitmapBytesMax: BITMAP_BYTES_MAX, blocks: () => this.section.blocks };
    const back = new ReturnPathDecoder((message) => {
      this.#answered(source, message);
    }, limits);
    dest.on("data", (chunk) => {
      this.#attempt(() => {
        back.push(chunk);
      });
    });
  }

  #joinRequested(source: Socket): void {
    const dest = this.#connect(source);
    const encoder = new RamEncoder(this.section);
    const write = pageWriter(encoder, (bytes) => dest.write(bytes));
    const decoder = new PreemptDecoder(this.section.blocks, {
      page: (block, page, buffer, offset) => {
        this.#place("requested", { block, page });
        write.page(block, page, buffer, offset);
      },
      zeroPage: (block, page) => {
        this.#place("requested", { block, page });
        write.zeroPage(block, page);
      },
    });
    this.#carry(source, dest, (chunk) => {
      decoder.push(chunk);
    });
  }

  #connect(source: Socket): Socket {
    const dest = createConnection(this.#options.destSocket);
    this.#sockets.push(source, dest);
    for (const [socket, other] of [
      [source, dest],
      [dest, source],
    ] as const) {
      socket.on("error", () => undefined);
      socket.on("close", () => other.end());
    }
    return dest;
  }

  #carry(source: Socket, dest: Socket, push: (chunk: Buffer) => void): void {
    source.on("data", (chunk: Buffer) => {
      this.#attempt(() => {
        push(chunk);
      });
      if (dest.writableLength < OUTSTANDING_BYTES_MAX) return;
      source.pause();
      dest.once("drain", () => source.resume());
    });
  }

  #mainHandler(source: Socket, dest: Socket): StreamHandler {
    let encoder: RamEncoder | null = null;
    let part: Buffer[] = [];
    const known = (): RamEncoder => (encoder ??= new RamEncoder(this.section));
    const write = (): RamRecordHandler => pageWriter(known(), (bytes) => part.push(bytes));
    return {
      page: (block, page, buffer, offset) => {
        if (this.#postcopy) this.#place("main", { block, page });
        write().page(block, page, buffer, offset);
      },
      zeroPage: (block, page) => {
        if (this.#postcopy) this.#place("main", { block, page });
        write().zeroPage(block, page);
      },
      partEnd: () => {
        if (part.length > 0) dest.write(inPart(known(), part));
        part = [];
      },
      ramEnd: () => {
        const end = Buffer.alloc(RamEncoder.emptyEndBytes);
        known().emptyEnd(end, 0);
        dest.write(end);
      },
      verbatim: (bytes) => {
        if (this.#answersItself) return;
        const copy = Buffer.from(bytes);
        this.kept.push(copy);
        dest.write(copy);
      },
      command: (command, payload) => {
        if (this.#answersItself) source.write(this.#answerTo(command, Buffer.from(payload)));
      },
      ramStart: (section) => {
        this.section = section;
      },
      packageEnd: () => {
        this.#postcopy = true;
      },
      deviceState: (bytes) => dest.write(Buffer.from(bytes)),
    };
  }

  /** A fresh dest knows nothing of a connection before: somebody has to say that it has nothing. */
  get #answersItself(): boolean {
    return this.#options.takesUp?.freshDest === true;
  }

  #answerTo(command: number, payload: Buffer): Buffer {
    if (command === COMMAND.POSTCOPY_RESUME) return encodeResumeAck(1);
    assert(command === COMMAND.RECV_BITMAP, "nothing else comes before a post-copy goes on");
    const name = payload.toString("latin1", 1);
    const block = this.section.blocks.find((each) => each.name === name);
    assert(block !== undefined, "the decoder knows the block that is asked for");
    return encodeRecvBitmap(name, Buffer.alloc(receivedBitmapBytes(block)));
  }

  #answered(source: Socket, message: ReturnPathMessage): void {
    if (message.type === "pong") this.pongs.push(message.value);
    if (message.type === "req-pages") {
      const { block, firstPage } = pageRequestOf(message, this.section.blocks);
      this.#askedMs.set(`${block}:${firstPage}`, performance.now());
    }
    // What a fresh dest says to a package of old, the source has heard before.
    if (!(this.#answersItself && message.type === "pong")) source.write(encodeReturnPath(message));
    if (message.type === "shut") this.shut.resolve(message.value);
  }

  /** Counts a page on its way into the dest's QEMU, which must get none twice. */
  #place(connection: "main" | "requested", { block, page }: PageKey): void {
    const key = `${block}:${page}`;
    this.counts[connection]++;
    if (this.#placed.has(key)) this.counts.twice++;
    this.#placed.add(key);
    const askedMs = this.#askedMs.get(key);
    if (askedMs !== undefined) this.answeredMs.push(performance.now() - askedMs);
    this.#askedMs.delete(key);
  }

  #attempt(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.shut.reject(error);
      this.close();
    }
  }
}

/** Encodes pages into buffers of their own. */
function pageWriter(encoder: RamEncoder, write: (bytes: Buffer) => unknown): RamRecordHandler {
  return {
    page: (block, page, buffer, offset) => {
      const out = Buffer.alloc(encoder.pageHeaderBytesMax + PAGE_BYTES);
      const at = encoder.pageHeader(out, 0, block, page);
      buffer.copy(out, at, offset, offset + PAGE_BYTES);
      write(out.subarray(0, at + PAGE_BYTES));
    },
    zeroPage: (block, page) => {
      const out = Buffer.alloc(encoder.pageHeaderBytesMax + 1);
      write(out.subarray(0, encoder.zeroPage(out, 0, block, page)));
    },
  };
}

function inPart(encoder: RamEncoder, records: readonly Buffer[]): Buffer {
  const head = Buffer.alloc(RamEncoder.sectionHeaderBytes);
  encoder.beginPart(head, 0);
  const end = Buffer.alloc(RamEncoder.partEndBytes);
  encoder.endPart(end, 0);
  return Buffer.concat([head, ...records, end]);
}
