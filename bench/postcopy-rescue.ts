import { createConnection, createServer, type Server, type Socket } from "node:net";
import {
  COMMAND,
  encodeRecvBitmap,
  encodeResumeAck,
  encodeReturnPath,
  ReturnPathDecoder,
} from "@vmferry/qemu";
import type { PostcopyRelay } from "./postcopy-relay.ts";

/** Speaks for a dest that has nothing, and hands a fresh QEMU what the first one had got. */
export class PostcopyRescue {
  readonly #server: Server;
  readonly #sockets: Socket[] = [];

  constructor(
    first: PostcopyRelay,
    options: { path: string; sourcePath: string; say: (what: string) => void },
  ) {
    const { path, sourcePath, say } = options;
    this.#server = createServer((source) => {
      const dest = createConnection(path);
      this.#sockets.push(source, dest);
      dest.write(Buffer.concat(first.verbatim));
      for (const socket of this.#sockets) socket.on("error", () => undefined);
      const back = new ReturnPathDecoder(
        (message) => {
          if (message.type !== "req-pages") say(`← ${JSON.stringify(message)}`);
          if (message.type !== "pong") source.write(encodeReturnPath(message));
        },
        { bitmapBytesMax: 0 },
      );
      dest.on("data", (chunk: Buffer) => {
        back.push(chunk);
      });
      let head = Buffer.alloc(0);
      let resumed = false;
      source.on("data", (chunk: Buffer) => {
        if (resumed) {
          dest.write(chunk);
          return;
        }
        head = Buffer.concat([head, chunk]);
        while (head.length >= 5 && head.length >= 5 + head.readUInt16BE(3)) {
          const command = head.readUInt16BE(1);
          const payload = head.subarray(5, 5 + head.readUInt16BE(3));
          say(`→ command ${command} ${payload.toString("latin1")}`);
          head = head.subarray(5 + payload.length);
          if (command === COMMAND.RECV_BITMAP) {
            const name = payload.toString("latin1", 1);
            const bits =
              (first.blocks.find((block) => block.name === name)?.lengthBytes ?? 0) / 4096;
            source.write(encodeRecvBitmap(name, Buffer.alloc(Math.ceil(bits / 64) * 8)));
          }
          if (command !== COMMAND.POSTCOPY_RESUME) continue;
          source.write(encodeResumeAck(1));
          resumed = true;
          dest.write(head);
          return;
        }
      });
    });
    this.#server.listen(sourcePath);
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}
