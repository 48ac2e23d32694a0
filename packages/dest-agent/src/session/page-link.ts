/** One page lane, or connection of blocks, that has shown which hand-over it serves. */
import type { RawData, WebSocket } from "ws";
import { messageOf, type Clock } from "@vmferry/core";
import { Heartbeat, PeerError } from "@vmferry/agent";
import {
  CloseCode,
  closeCodeOf,
  decodeControl,
  limits,
  violation,
  type ControlMessageOf,
  type PageLaneName,
} from "@vmferry/protocol";

const HELLO_MS_MAX = 5000;

export interface PageLink {
  /** `flushed` is called when the bytes have left, or never will. */
  send(bytes: Buffer, flushed: () => void): void;
  /** Called once, at once: nothing is kept for somebody who listens later. */
  listen(onMessage: (bytes: Buffer) => void, onEnd: (reason: Error) => void): void;
  close(code: CloseCode): void;
}

/** What page lanes want to be attached to. */
export interface PagesOwner {
  /** The hand-over that the hello names is this one, and whoever says so is the source of it. */
  claimMatches(hello: ControlMessageOf<"pages-hello">): boolean;
  attachPages(lane: PageLaneName, attempt: number, link: PageLink): void;
}

/** What a connection of blocks wants to be attached to. */
export interface BlocksOwner {
  claimMatches(hello: ControlMessageOf<"blocks-hello">): boolean;
  attachBlocks(attempt: number, link: PageLink): void;
}

type Hello = ControlMessageOf<"pages-hello" | "blocks-hello">;

/** Reads the first message of a page lane and attaches it, or closes it. */
export function admitPages(
  socket: WebSocket,
  clock: Clock,
  ownerOf: (migrationId: string) => PagesOwner | undefined,
): void {
  admit(socket, clock, (hello) => {
    if (hello.kind !== "pages-hello") throw violation("a page lane begins with pages-hello");
    const owner = ownerOf(hello.migrationId);
    if (owner?.claimMatches(hello) !== true) return null;
    return (link) => {
      owner.attachPages(hello.lane, hello.attempt, link);
    };
  });
}

/** The same for a connection of blocks. */
export function admitBlocks(
  socket: WebSocket,
  clock: Clock,
  ownerOf: (migrationId: string) => BlocksOwner | undefined,
): void {
  admit(socket, clock, (hello) => {
    if (hello.kind !== "blocks-hello") {
      throw violation("a connection of blocks begins with blocks-hello");
    }
    const owner = ownerOf(hello.migrationId);
    if (owner?.claimMatches(hello) !== true) return null;
    return (link) => {
      owner.attachBlocks(hello.attempt, link);
    };
  });
}

/** `ownerOf` says who takes the link; null where nobody does. It throws ProtocolError. */
function admit(
  socket: WebSocket,
  clock: Clock,
  ownerOf: (hello: Hello) => ((link: PageLink) => void) | null,
): void {
  const cancelTimer = clock.after(HELLO_MS_MAX, () => {
    socket.close(CloseCode.PROTOCOL_VIOLATION);
    socket.terminate();
  });
  socket.on("error", () => undefined);
  socket.once("close", cancelTimer);
  socket.once("message", (data: RawData) => {
    cancelTimer();
    try {
      const hello = decodeControl(data as Buffer);
      if (hello.kind !== "pages-hello" && hello.kind !== "blocks-hello") {
        throw violation("not the first message of a connection");
      }
      const attach = ownerOf(hello);
      if (attach === null) {
        socket.close(CloseCode.SESSION_UNKNOWN);
        return;
      }
      if (hello.version !== limits.PROTOCOL_VERSION) throw violation("hello version");
      attach(linkOf(socket, clock));
    } catch (error) {
      socket.close(closeCodeOf(error));
    }
  });
}

function linkOf(socket: WebSocket, clock: Clock): PageLink {
  let onEnd: (reason: Error) => void = () => undefined;
  const end = (reason: Error): void => {
    const tell = onEnd;
    onEnd = () => undefined;
    tell(reason);
  };
  const heartbeat = new Heartbeat(socket, {
    clock,
    onSilent: () => {
      end(lost("the peer has been silent for too long", null));
      socket.terminate();
    },
  });
  socket.on("error", (error) => {
    end(lost(messageOf(error), null));
  });
  socket.on("close", (code) => {
    end(lost(`closed (${code})`, code));
  });
  return {
    send: (bytes, flushed) => {
      socket.send(bytes, { binary: true }, flushed);
    },
    listen: (onMessage, ended) => {
      onEnd = ended;
      socket.on("message", (data: RawData, isBinary: boolean) => {
        heartbeat.heard();
        if (isBinary) onMessage(data as Buffer);
        else end(violation("text message on a connection of its own"));
      });
    },
    close: (code) => {
      onEnd = () => undefined;
      socket.close(code);
      socket.terminate();
    },
  };
}

function lost(text: string, closeCode: number | null): PeerError {
  return new PeerError(`a connection for what follows the guest ended: ${text}`, {
    code: "peer-lost",
    closeCode,
  });
}
