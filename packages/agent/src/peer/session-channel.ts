/**
 * The control messages of a session, over one connection after another: each comes once and in
 * order, whatever becomes of the connections.
 *
 * Both sides count what they have taken. What was sent is kept until the peer has counted it, at
 * most `SENT_MESSAGES_MAX` messages; a peer that acknowledges less than that is given up. When a
 * connection takes the place of another, each side first says what it has, and the other goes on
 * behind that. The older one is not listened to from then on, so its count stands still.
 */
import { Deferred } from "@vmferry/core";
import { CloseCode, limits, type ControlMessage } from "@vmferry/protocol";
import type { Channel } from "./control-channel.ts";
import { PeerError } from "./peer-error.ts";
import { SentLog } from "./sent-log.ts";

const { RECEIVED_MESSAGES_STEP, SENT_MESSAGES_MAX } = limits;

/** Where messages come from and go to, for as long as it is open. */
export type MessageLink = Pick<Channel, "closed" | "listen" | "send" | "close">;

export class SessionChannel implements MessageLink {
  /** Why no further connection is waited for; never rejects. */
  readonly closed: Promise<Error>;
  readonly #closed = new Deferred<Error>();
  readonly #sent = new SentLog<ControlMessage>(SENT_MESSAGES_MAX);
  readonly #onBroken: (reason: Error) => void;
  #connection: MessageLink;
  #listener: ((message: ControlMessage) => void) | null = null;
  #receivedCount = 0;
  /** Why there is no connection at present. */
  #broken: Error | null = null;
  #mayResume = true;

  /** `onBroken`: the connection is lost, and another may take its place. */
  constructor(connection: MessageLink, onBroken: (reason: Error) => void) {
    this.closed = this.#closed.promise;
    this.#onBroken = onBroken;
    this.#connection = connection;
    this.#watch(connection);
  }

  /** Messages of the peer that were taken. */
  get receivedCount(): number {
    return this.#receivedCount;
  }

  get ended(): boolean {
    return this.#closed.settled;
  }

  listen(listener: (message: ControlMessage) => void): void {
    this.#listener = listener;
    this.#listenTo(this.#connection);
  }

  /** Throws the reason when no peer will ever read it. */
  send(message: ControlMessage): void {
    if (this.ended) throw lost("the session with the peer is over");
    if (this.#sent.full) {
      const error = lost("the peer does not acknowledge its control messages");
      this.end(error);
      throw error;
    }
    this.#sent.push(message);
    if (this.#broken === null) this.#say(message);
  }

  /**
   * The peer has come back over another connection, and has taken `peerReceived` messages so far.
   * It has been told `receivedCount`. Throws when it claims more than was sent.
   */
  resume(connection: MessageLink, peerReceived: number): void {
    this.#sent.received(peerReceived);
    const before = this.#connection;
    this.#connection = connection;
    this.#broken = null;
    before.close(CloseCode.SESSION_ENDED);
    this.#watch(connection);
    // What a message that comes now is answered with has its place behind these.
    for (const message of this.#sent.kept) this.#say(message);
    if (this.#listener !== null) this.#listenTo(connection);
  }

  /** The next loss is the end, and one that lasts is it now. */
  resumeNoMore(): void {
    this.#mayResume = false;
    if (this.#broken !== null) this.#closed.resolve(this.#broken);
  }

  end(reason: Error): void {
    if (this.ended) return;
    this.#closed.resolve(reason);
    this.#connection.close(CloseCode.SESSION_ENDED);
  }

  close(code: CloseCode): void {
    this.#closed.resolve(lost("the session with the peer was closed"));
    this.#connection.close(code);
  }

  #watch(connection: MessageLink): void {
    void connection.closed.then((reason) => {
      if (connection !== this.#connection || this.ended) return;
      this.#broken = reason;
      if (this.#mayResume && mayComeBack(reason)) this.#onBroken(reason);
      else this.#closed.resolve(reason);
    });
  }

  #listenTo(connection: MessageLink): void {
    connection.listen((message) => {
      if (connection === this.#connection) this.#take(message);
    });
  }

  #take(message: ControlMessage): void {
    if (message.kind === "received") {
      this.#sent.received(message.received);
      return;
    }
    this.#receivedCount++;
    if (this.#receivedCount % RECEIVED_MESSAGES_STEP === 0) {
      this.#say({ kind: "received", received: this.#receivedCount });
    }
    this.#listener!(message);
  }

  /** A connection that is lost says so by itself; then what was said here is said again. */
  #say(message: ControlMessage): void {
    try {
      this.#connection.send(message);
    } catch {
      // Told by `closed` of the connection.
    }
  }
}

/** Neither a farewell nor a peer that breaks the protocol: the link is to blame. */
export function mayComeBack(reason: Error): boolean {
  if (!(reason instanceof PeerError) || reason.detail.code !== "peer-lost") return false;
  const { closeCode } = reason.detail;
  return closeCode === null || closeCode < CloseCode.DONE;
}

function lost(text: string): PeerError {
  return new PeerError(text, { code: "peer-lost", closeCode: null });
}
