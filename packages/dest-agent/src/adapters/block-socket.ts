/** The connection of its own over which what is missing of lazy disks is fetched. */
import type { RawData, WebSocket } from "ws";
import { Deferred } from "@vmferry/core";
import { closeCodeOf, violation } from "@vmferry/protocol";
import type { BlockFetcher } from "../disk/block-fetcher.ts";

/**
 * The fetcher's link from now on, until it ends. Resolves with why: lost, or closed for what came
 * over it. What is open stays with the fetcher.
 */
export function fetchBlocks(socket: WebSocket, fetcher: BlockFetcher): Promise<unknown> {
  const ended = new Deferred<unknown>();
  const link = {
    send: (message: Buffer): void => {
      // A link that is lost says so by its close.
      socket.send(message, { binary: true }, () => undefined);
    },
  };
  const end = (reason: unknown): void => {
    if (ended.settled) return;
    fetcher.detach(link);
    socket.close(closeCodeOf(reason));
    socket.terminate();
    ended.resolve(reason);
  };
  socket.on("error", end);
  socket.on("close", () => {
    end(new Error("the connection of the blocks is closed"));
  });
  socket.on("message", (data: RawData, isBinary: boolean) => {
    try {
      if (!isBinary) throw violation("text message on a connection of blocks");
      fetcher.received(link, data as Buffer);
    } catch (error) {
      end(error);
    }
  });
  fetcher.attach(link);
  return ended.promise;
}
