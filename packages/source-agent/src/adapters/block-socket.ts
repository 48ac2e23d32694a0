/** The connection of its own over which a dest fetches what is missing of lazy disks. */
import { once } from "node:events";
import { WebSocket } from "ws";
import { Deferred } from "@vmferry/core";
import { closeCodeOf, limits, violation } from "@vmferry/protocol";
import { BlockServer, type BlockServerOptions } from "../disk/block-server.ts";

const HANDSHAKE_MS_MAX = 10_000;

export interface BlockServing {
  readonly server: BlockServer;
  /** Resolves with why it ended: the link was lost, or is to be closed for what came over it. */
  readonly ended: Promise<unknown>;
  /** Resolves with `ended`. */
  close(): void;
}

/** `url`: with its path. The socket is paused until it is served. */
export async function dialBlocks(url: string, token: string | null): Promise<WebSocket> {
  const socket = new WebSocket(url, {
    perMessageDeflate: false,
    maxPayload: limits.CONTROL_BYTES_MAX,
    maxFragments: 1,
    handshakeTimeout: HANDSHAKE_MS_MAX,
    followRedirects: false,
    // As for bulk connections: docs/decisions/0004.
    generateMask: (mask) => mask.fill(0),
    headers: token === null ? {} : { authorization: `Bearer ${token}` },
  });
  // The dest asks as soon as it has the connection, and nobody listens yet.
  socket.once("open", () => {
    socket.pause();
  });
  await once(socket, "open");
  return socket;
}

/** Answers what comes over the socket until it ends. */
export function serveBlocks(
  socket: WebSocket,
  options: Omit<BlockServerOptions, "link" | "onFailed">,
): BlockServing {
  const ended = new Deferred<unknown>();
  const end = (reason: unknown): void => {
    if (ended.settled) return;
    server.stop();
    socket.close(closeCodeOf(reason));
    socket.terminate();
    ended.resolve(reason);
  };
  const send = (message: Buffer): Promise<void> =>
    new Promise((resolve) => {
      // A link that is lost says so by its close.
      socket.send(message, { binary: true }, () => {
        resolve();
      });
    });
  const server = new BlockServer({ ...options, link: { send }, onFailed: end });
  socket.on("error", end);
  socket.on("close", () => {
    end(new Error("the connection of the blocks is closed"));
  });
  socket.on("message", (data, isBinary) => {
    try {
      if (!isBinary) throw violation("text message on a connection of blocks");
      server.received(data as Buffer);
    } catch (error) {
      end(error);
    }
  });
  socket.resume();
  return {
    server,
    ended: ended.promise,
    close: () => {
      end(new Error("no block is asked for any more"));
    },
  };
}
