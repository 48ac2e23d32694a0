/**
 * The control connection of a hand-over to its dest, hellos exchanged. Until the hand-over it belongs
 * to a session, which goes on over another one where it was. Afterwards, and by an agent that was
 * restarted, it is made anew to ask about ownership alone.
 */
import { messageOf, type Clock } from "@vmferry/core";
import {
  asProblemCode,
  PeerError,
  SessionChannel,
  type Channel,
  type Logger,
  type MessageLink,
} from "@vmferry/agent";
import {
  agree,
  CloseCode,
  ourHello,
  type Agreement,
  type ControlMessage,
  type ControlMessageOf,
} from "@vmferry/protocol";
import type { Dialer } from "../adapters/peer-dialer.ts";
import { SessionError } from "./session-error.ts";

export interface Identity {
  readonly software: string;
  /** Of the process. */
  readonly incarnation: string;
}

export interface ControlLinkOptions {
  readonly dialer: Pick<Dialer, "control">;
  readonly identity: Identity;
  readonly logger: Logger;
  readonly clock: Clock;
}

/** What the dest knows the session by. */
export type ResumedSession = Omit<ControlMessageOf<"resume">, "kind" | "received">;

const CONNECT_MS_MAX = 5000;

export class ControlLink {
  readonly #options: ControlLinkOptions;
  #channel: Channel | null = null;
  /** Null before the session begins, and after it. */
  #session: SessionChannel | null = null;
  #onMessage: ((message: ControlMessage) => void) | null = null;

  constructor(options: ControlLinkOptions) {
    this.#options = options;
  }

  /** Rejects with the dest's reason, or why it cannot be reached; the old connection stays then. */
  async connect(signal: AbortSignal): Promise<Agreement> {
    return this.#greet(signal, (channel) => {
      this.#session = null;
      this.#channel = channel;
      if (this.#onMessage !== null) channel.listen(this.#onMessage);
      return Promise.resolve();
    });
  }

  /** From now on the loss of the connection is told by `onBroken`, and by `closed` only its end. */
  beginSession(onBroken: (reason: Error) => void): void {
    this.#session = new SessionChannel(this.#channel!, onBroken);
  }

  /** Goes on with it over a new connection. Rejects with why not; then it may be tried again. */
  async resumeSession(about: ResumedSession, signal: AbortSignal): Promise<Agreement> {
    const session = this.#session!;
    return this.#greet(signal, async (channel) => {
      channel.send({ kind: "resume", ...about, received: session.receivedCount });
      const { received } = await expectAnswer<ControlMessageOf<"received">>(
        channel.next("received", "reject"),
      );
      signal.throwIfAborted();
      this.#channel = channel;
      session.resume(channel, received);
    });
  }

  /** The hand-over is next: a connection that is lost from now on is the end of this one. */
  endSession(): void {
    this.#session?.resumeNoMore();
  }

  /** Takes a hand-over up again; false when the dest cannot be asked. */
  async resume(about: Omit<ResumedSession, "session">): Promise<boolean> {
    const { clock, logger } = this.#options;
    const timer = new AbortController();
    const cancelTimer = clock.after(CONNECT_MS_MAX, () => {
      timer.abort(new SessionError("the dest does not answer", { code: "peer-unreachable" }));
    });
    try {
      await this.connect(timer.signal);
      this.send({ kind: "resume", ...about, session: null, received: 0 });
      return true;
    } catch (error) {
      logger.info({ reason: messageOf(error) }, "the dest cannot be asked yet");
      return false;
    } finally {
      cancelTimer();
    }
  }

  /** The shortest round trip seen; 0 before the first. */
  get roundTripMs(): number {
    return this.#channel?.roundTripMs ?? 0;
  }

  /** Why the present connection ended; never rejects. */
  get closed(): Promise<Error> {
    return (
      this.#link?.closed ??
      Promise.resolve(
        new PeerError("there is no link to the dest", { code: "peer-lost", closeCode: null }),
      )
    );
  }

  next<K extends ControlMessage["kind"]>(...kinds: readonly K[]): Promise<ControlMessageOf<K>> {
    return this.#channel!.next(...kinds);
  }

  /** Messages of this connection and of those that replace it. */
  listen(onMessage: (message: ControlMessage) => void): void {
    this.#onMessage = onMessage;
    this.#link?.listen(onMessage);
  }

  /** A link that is gone for good loses nothing: whoever cares waits for its end, not for this message. */
  send(message: ControlMessage): void {
    try {
      this.#link?.send(message);
    } catch (error) {
      this.#options.logger.debug({ kind: message.kind, reason: messageOf(error) }, "not sent");
    }
  }

  close(code: CloseCode): void {
    this.#link?.close(code);
  }

  get #link(): MessageLink | null {
    return this.#session ?? this.#channel;
  }

  /** A connection with hellos exchanged, and with what `then` does on it; else it is closed. */
  async #greet(signal: AbortSignal, then: (channel: Channel) => Promise<void>): Promise<Agreement> {
    const { dialer, identity } = this.#options;
    const channel = await dialer.control(signal);
    const abort = (): void => {
      channel.close(CloseCode.SESSION_ENDED);
    };
    signal.addEventListener("abort", abort, { once: true });
    try {
      const hello = ourHello(identity);
      channel.send(hello);
      const theirs = await expectAnswer<ControlMessageOf<"hello">>(channel.next("hello", "reject"));
      const agreement = agree(hello, theirs);
      signal.throwIfAborted();
      await then(channel);
      return agreement;
    } catch (error) {
      channel.close(CloseCode.SESSION_ENDED);
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }
}

/** The answer that was hoped for; a `reject` becomes the dest's reason. */
export async function expectAnswer<M extends ControlMessage>(
  answer: Promise<M | ControlMessageOf<"reject">>,
): Promise<M> {
  const message = await answer;
  if (!isReject(message)) return message;
  throw new SessionError(message.text, { code: asProblemCode(message.code, "peer-refused") });
}

function isReject(message: ControlMessage): message is ControlMessageOf<"reject"> {
  return message.kind === "reject";
}
