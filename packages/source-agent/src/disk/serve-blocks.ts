/** What a dest asks over one connection is answered until that ends. */
import { Deferred } from "@vmferry/core";
import type { OpenPageLane } from "../adapters/page-socket.ts";
import { BlockServer, type BlockServerOptions } from "./block-server.ts";

export interface BlockServing {
  readonly server: BlockServer;
  /** Resolves with why it ended: the link was lost, or is to be closed for what came over it. */
  readonly ended: Promise<unknown>;
  /** Resolves with `ended`. */
  close(): void;
}

export function serveBlocks(
  lane: Pick<OpenPageLane, "send" | "listen" | "close" | "closed">,
  options: Omit<BlockServerOptions, "link" | "onFailed">,
): BlockServing {
  const ended = new Deferred<unknown>();
  const end = (reason: unknown): void => {
    if (ended.settled) return;
    server.stop();
    lane.close(reason);
    ended.resolve(reason);
  };
  const send = (message: Buffer): Promise<void> =>
    new Promise((resolve) => {
      // A link that is lost says so by its close.
      lane.send(message, resolve);
    });
  const server = new BlockServer({ ...options, link: { send }, onFailed: end });
  void lane.closed.then(end);
  lane.listen((message) => {
    try {
      server.received(message);
    } catch (error) {
      end(error);
    }
  });
  return {
    server,
    ended: ended.promise,
    close: () => {
      end(new Error("no block is asked for any more"));
    },
  };
}
