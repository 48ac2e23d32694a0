/**
 * The connections of one session to its dest, and how they come about: hello, offer, accept, bulk.
 * Until `open` resolves nothing of the guest has been touched on either side. The control
 * connection can be made anew after the link was lost.
 */
import { messageOf, type Clock } from "@vmferry/core";
import { asProblemCode, type ControlChannel, type Logger } from "@vmferry/agent";
import {
  agree,
  CloseCode,
  limits,
  ourHello,
  type Agreement,
  type ControlMessage,
  type ControlMessageOf,
} from "@vmferry/protocol";
import type { OpenBulkConnection, PeerDialer } from "../adapters/peer-dialer.ts";
import { SessionError } from "./session-error.ts";

export interface Identity {
  readonly software: string;
  readonly incarnation: string;
}

export interface PeerLinkOptions {
  readonly dialer: PeerDialer;
  readonly identity: Identity;
  readonly offer: ControlMessageOf<"offer">;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

const { PROTOCOL_VERSION } = limits;
const RECONNECT_MS_MAX = 5000;
const REASON_MS_MAX = 500;

interface Opened {
  readonly control: ControlChannel;
  readonly agreement: Agreement;
  readonly accept: ControlMessageOf<"accept">;
  readonly bulk: readonly OpenBulkConnection[];
}

export class PeerLink {
  readonly bulk: readonly OpenBulkConnection[];
  readonly accept: ControlMessageOf<"accept">;
  readonly agreement: Agreement;
  readonly #options: PeerLinkOptions;
  #control: ControlChannel;
  #onMessage: (message: ControlMessage) => void = () => undefined;

  private constructor(options: PeerLinkOptions, opened: Opened) {
    this.#options = options;
    this.#control = opened.control;
    this.agreement = opened.agreement;
    this.accept = opened.accept;
    this.bulk = opened.bulk;
  }

  /** Rejects with the dest's reason, or why it cannot be reached; then nothing stays open. */
  static async open(options: PeerLinkOptions): Promise<PeerLink> {
    const { dialer, offer, signal } = options;
    const { control, agreement } = await greet(options, signal);
    const abort = (): void => {
      control.close(CloseCode.SESSION_ENDED);
    };
    signal.addEventListener("abort", abort, { once: true });
    const bulk: OpenBulkConnection[] = [];
    try {
      offerTo(control, offer);
      const accept = await answerTo<ControlMessageOf<"accept">>(control.next("accept", "reject"));
      const { migrationId, bulkConnections } = offer;
      const hello = { version: PROTOCOL_VERSION, migrationId, session: accept.session };
      for (let index = 0; index < bulkConnections; index++) {
        bulk.push(await dialer.bulk({ kind: "bulk-hello", ...hello, index }, signal));
      }
      signal.throwIfAborted();
      return new PeerLink(options, { control, agreement, accept, bulk });
    } catch (error) {
      for (const connection of bulk) connection.close(error);
      control.close(CloseCode.SESSION_ENDED);
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  get roundTripMs(): number {
    return this.#control.roundTripMs;
  }

  /** Why the present control connection ended; never rejects. */
  get closed(): Promise<Error> {
    return this.#control.closed;
  }

  /**
   * Calls back when any connection ends. The end of a bulk connection waits a moment: where the dest
   * ended it, the reason comes on the control connection; where the link did, that ends as well.
   */
  onLost(callback: (reason: Error) => void): void {
    void this.#control.closed.then(callback);
    for (const { closed } of this.bulk) {
      void closed.then((reason) => {
        this.#options.clock.after(REASON_MS_MAX, () => {
          callback(reason);
        });
      });
    }
  }

  /** Messages of this control connection and of those that replace it. */
  listen(onMessage: (message: ControlMessage) => void): void {
    this.#onMessage = onMessage;
    this.#control.listen(onMessage);
  }

  /** A link that is gone loses nothing: whoever cares waits for its end, not for this message. */
  send(message: ControlMessage): void {
    try {
      this.#control.send(message);
    } catch (error) {
      this.#options.logger.debug({ kind: message.kind, reason: messageOf(error) }, "not sent");
    }
  }

  /** Takes the session up again on a new control connection; false when the dest cannot be asked. */
  async reconnect(): Promise<boolean> {
    const { offer, logger } = this.#options;
    try {
      const { control } = await greet(this.#options, AbortSignal.timeout(RECONNECT_MS_MAX));
      control.send({
        kind: "resume",
        migrationId: offer.migrationId,
        session: this.accept.session,
      });
      this.#control = control;
      control.listen(this.#onMessage);
      return true;
    } catch (error) {
      logger.info({ reason: messageOf(error) }, "the dest cannot be asked yet");
      return false;
    }
  }

  close(): void {
    for (const connection of this.bulk) connection.close();
    this.#control.close(CloseCode.DONE);
  }
}

/** A control connection with hellos exchanged. */
async function greet(
  options: PeerLinkOptions,
  signal: AbortSignal,
): Promise<Pick<Opened, "control" | "agreement">> {
  const control = await options.dialer.control(signal);
  const abort = (): void => {
    control.close(CloseCode.SESSION_ENDED);
  };
  signal.addEventListener("abort", abort, { once: true });
  try {
    const hello = ourHello(options.identity);
    control.send(hello);
    const theirs = await answerTo<ControlMessageOf<"hello">>(control.next("hello", "reject"));
    const agreement = agree(hello, theirs);
    signal.throwIfAborted();
    return { control, agreement };
  } catch (error) {
    control.close(CloseCode.SESSION_ENDED);
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** A dest that closes has said why: its reject is read by whoever waits for the answer. */
function offerTo(control: ControlChannel, offer: ControlMessageOf<"offer">): void {
  try {
    control.send(offer);
  } catch {
    // The channel has ended; `next` tells with what.
  }
}

/** The answer that was hoped for; a `reject` becomes the dest's reason. */
async function answerTo<M extends ControlMessage>(
  answer: Promise<M | ControlMessageOf<"reject">>,
): Promise<M> {
  const message = await answer;
  if (!isReject(message)) return message;
  throw new SessionError(message.text, { code: asProblemCode(message.code, "peer-refused") });
}

function isReject(message: ControlMessage): message is ControlMessageOf<"reject"> {
  return message.kind === "reject";
}
