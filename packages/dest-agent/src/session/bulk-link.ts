/** One bulk connection that has shown that it belongs to a session. */
import { timingSafeEqual } from "node:crypto";
import type { RawData, WebSocket } from "ws";
import { messageOf, type Clock } from "@vmferry/core";
import { Heartbeat, PeerError } from "@vmferry/agent";
import {
  CloseCode,
  closeCodeOf,
  decodeControl,
  encodeControl,
  limits,
  violation,
  type ControlMessage,
} from "@vmferry/protocol";

const HELLO_MS_MAX = 5000;

export interface BulkLink {
  /** What cannot be sent any more is left out. */
  send(message: ControlMessage): void;
  listen(onFrame: (frame: Buffer) => void, onEnd: (reason: Error) => void): void;
  close(code: CloseCode): void;
}

/** What a bulk connection wants to be attached to. */
export interface BulkOwner {
  readonly secret: string;
  readonly bulkConnections: number;
  attach(index: number, link: BulkLink): void;
}

/** Reads the first message of a bulk connection and attaches it, or closes it. */
export function admitBulk(
  socket: WebSocket,
  clock: Clock,
  ownerOf: (migrationId: string) => BulkOwner | undefined,
): void {
  const timer = setTimeout(() => {
    socket.close(CloseCode.PROTOCOL_VIOLATION);
    socket.terminate();
  }, HELLO_MS_MAX);
  socket.on("error", () => undefined);
  socket.once("message", (data: RawData) => {
    clearTimeout(timer);
    try {
      const hello = decodeControl(data as Buffer);
      if (hello.kind !== "bulk-hello") throw violation("a bulk connection begins with bulk-hello");
      const owner = ownerOf(hello.migrationId);
      if (owner === undefined || !sameSecret(hello.session, owner.secret)) {
        socket.close(CloseCode.SESSION_UNKNOWN);
        return;
      }
      if (hello.version !== limits.PROTOCOL_VERSION) throw violation("bulk-hello version");
      if (hello.index >= owner.bulkConnections) throw violation("bulk connection index");
      owner.attach(hello.index, linkOf(socket, clock));
    } catch (error) {
      socket.close(closeCodeOf(error));
    }
  });
  socket.once("close", () => {
    clearTimeout(timer);
  });
}

export function sameSecret(given: string, secret: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(secret)];
  return a.length === b.length && timingSafeEqual(a, b);
}

function linkOf(socket: WebSocket, clock: Clock): BulkLink {
  // Beats for the source to hear, which judges by them.
  new Heartbeat(socket, { clock, onSilent: null });
  let isOurEnd = false;
  return {
    send: (message) => {
      socket.send(encodeControl(message), () => undefined);
    },
    listen: (onFrame, onEnd) => {
      socket.on("message", (data: RawData, isBinary: boolean) => {
        if (isBinary) onFrame(data as Buffer);
        else onEnd(violation("text message on a bulk connection"));
      });
      socket.on("error", (error) => {
        onEnd(lost(messageOf(error), null));
      });
      socket.on("close", (code) => {
        if (!isOurEnd) onEnd(lost(`closed (${code})`, code));
      });
    },
    close: (code) => {
      isOurEnd = true;
      socket.close(code);
      socket.terminate();
    },
  };
}

function lost(text: string, closeCode: number | null): PeerError {
  return new PeerError(`a bulk connection ended: ${text}`, { code: "peer-lost", closeCode });
}
