/**
 * The control connection of a hand-over to its dest, hellos exchanged. It can be made anew after the
 * link was lost, and by an agent that was restarted.
 */
import { messageOf, type Clock } from "@vmferry/core";
import { asProblemCode, type Channel, type Logger } from "@vmferry/agent";
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

const CONNECT_MS_MAX = 5000;

export class ControlLink {
  readonly #options: ControlLinkOptions;
  #channel: Channel | null = null;
  #onMessage: ((message: ControlMessage) => void) | null = null;

  constructor(options: ControlLinkOptions) {
    this.#options = options;
  }

  /** Rejects with the dest's reason, or why it cannot be reached; the old connection stays then. */
  async connect(signal: AbortSignal): Promise<Agreement> {
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
      this.#channel = channel;
      if (this.#onMessage !== null) channel.listen(this.#onMessage);
      return agreement;
    } catch (error) {
      channel.close(CloseCode.SESSION_ENDED);
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  /** Takes a hand-over up again; false when the dest cannot be asked. */
  async resume(about: Omit<ControlMessageOf<"resume">, "kind">): Promise<boolean> {
    const { clock, logger } = this.#options;
    const timer = new AbortController();
    const cancelTimer = clock.after(CONNECT_MS_MAX, () => {
      timer.abort(new SessionError("the dest does not answer", { code: "peer-unreachable" }));
    });
    try {
      await this.connect(timer.signal);
      this.send({ kind: "resume", ...about });
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
      this.#channel?.closed ??
      Promise.resolve(new SessionError("there is no link to the dest", { code: "peer-lost" }))
    );
  }

  next<K extends ControlMessage["kind"]>(...kinds: readonly K[]): Promise<ControlMessageOf<K>> {
    return this.#channel!.next(...kinds);
  }

  /** Messages of this connection and of those that replace it. */
  listen(onMessage: (message: ControlMessage) => void): void {
    this.#onMessage = onMessage;
    this.#channel?.listen(onMessage);
  }

  /** A link that is gone loses nothing: whoever cares waits for its end, not for this message. */
  send(message: ControlMessage): void {
    try {
      this.#channel?.send(message);
    } catch (error) {
      this.#options.logger.debug({ kind: message.kind, reason: messageOf(error) }, "not sent");
    }
  }

  close(code: CloseCode): void {
    this.#channel?.close(code);
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
