/** The connection of its own over which what is missing of lazy disks is fetched. */
import { Deferred } from "@vmferry/core";
import { closeCodeOf, type CloseCode } from "@vmferry/protocol";
import type { BlockFetcher } from "../disk/block-fetcher.ts";
import type { PageLink } from "../session/page-link.ts";

export interface BlockFetching {
  /** Resolves with why: the link was lost, or closed for what came over it, or here. */
  readonly ended: Promise<unknown>;
  close(code: CloseCode): void;
}

/** The fetcher's link from now on, until it ends. What is open stays with the fetcher. */
export function fetchBlocks(link: PageLink, fetcher: BlockFetcher): BlockFetching {
  const ended = new Deferred<unknown>();
  const asked = {
    send: (message: Buffer): void => {
      // A link that is lost says so by its end.
      link.send(message, () => undefined);
    },
  };
  const end = (reason: unknown, code: CloseCode): void => {
    if (ended.settled) return;
    ended.resolve(reason);
    fetcher.detach(asked);
    link.close(code);
  };
  link.listen(
    (message) => {
      try {
        fetcher.received(asked, message);
      } catch (error) {
        end(error, closeCodeOf(error));
      }
    },
    (reason) => {
      end(reason, closeCodeOf(reason));
    },
  );
  fetcher.attach(asked);
  return {
    ended: ended.promise,
    close: (code) => {
      end(new Error("another connection of blocks takes its place, or none is needed"), code);
    },
  };
}
