/** One page lane that has shown which hand-over it serves. */
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

/** Reads the first message of a page lane and attaches it, or closes it. */
export function admitPages(
  socket: WebSocket,
  clock: Clock,
  ownerOf: (migrationId: string) => PagesOwner | undefined,
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
      if (hello.kind !== "pages-hello") throw violation("a page lane begins with pages-hello");
      const owner = ownerOf(hello.migrationId);
      if (owner?.claimMatches(hello) !== true) {
        socket.close(CloseCode.SESSION_UNKNOWN);
        return;
      }
      if (hello.version !== limits.PROTOCOL_VERSION) throw violation("pages-hello version");
      owner.attachPages(hello.lane, hello.attempt, linkOf(socket, clock));
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
        else end(violation("text message on a page lane"));
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
  return new PeerError(`a page lane ended: ${text}`, { code: "peer-lost", closeCode });
}
