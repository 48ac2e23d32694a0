/**
 * The connections of one attempt to its dest, and how they come about: hello, offer, accept, bulk.
 * Until `open` resolves nothing of the guest has been touched on either side.
 */
import {
  CloseCode,
  limits,
  type Agreement,
  type ControlMessage,
  type ControlMessageOf,
} from "@vmferry/protocol";
import type { Dialer, OpenBulkConnection } from "../adapters/peer-dialer.ts";
import { ControlLink, expectAnswer, type ControlLinkOptions } from "./control-link.ts";

export interface PeerLinkOptions extends ControlLinkOptions {
  readonly dialer: Dialer;
  readonly offer: ControlMessageOf<"offer">;
  readonly traceParent: string | null;
  readonly signal: AbortSignal;
}

const { PROTOCOL_VERSION } = limits;
const REASON_MS_MAX = 500;

interface Opened {
  readonly control: ControlLink;
  readonly agreement: Agreement;
  readonly accept: ControlMessageOf<"accept">;
  readonly bulk: readonly OpenBulkConnection[];
}

export class PeerLink {
  readonly control: ControlLink;
  readonly bulk: readonly OpenBulkConnection[];
  readonly accept: ControlMessageOf<"accept">;
  readonly agreement: Agreement;
  readonly #options: PeerLinkOptions;

  private constructor(options: PeerLinkOptions, opened: Opened) {
    this.#options = options;
    this.control = opened.control;
    this.agreement = opened.agreement;
    this.accept = opened.accept;
    this.bulk = opened.bulk;
  }

  /** Rejects with the dest's reason, or why it cannot be reached; then nothing stays open. */
  static async open(options: PeerLinkOptions): Promise<PeerLink> {
    const { dialer, offer, traceParent, signal } = options;
    const control = new ControlLink(options);
    const agreement = await control.connect(signal);
    const abort = (): void => {
      control.close(CloseCode.SESSION_ENDED);
    };
    signal.addEventListener("abort", abort, { once: true });
    const bulk: OpenBulkConnection[] = [];
    try {
      const mayTrace = traceParent !== null && agreement.features.has("trace");
      control.send(mayTrace ? { ...offer, traceparent: traceParent } : offer);
      const accept = await expectAnswer<ControlMessageOf<"accept">>(
        control.next("accept", "reject"),
      );
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
    return this.control.roundTripMs;
  }

  /**
   * Calls back when any connection ends. The end of a bulk connection waits a moment: where the dest
   * ended it, the reason comes on the control connection; where the link did, that ends as well.
   */
  onLost(callback: (reason: Error) => void): void {
    void this.control.closed.then(callback);
    for (const { closed } of this.bulk) {
      void closed.then((reason) => {
        this.#options.clock.after(REASON_MS_MAX, () => {
          callback(reason);
        });
      });
    }
  }

  send(message: ControlMessage): void {
    this.control.send(message);
  }

  close(): void {
    for (const connection of this.bulk) connection.close();
    this.control.close(CloseCode.DONE);
  }
}
