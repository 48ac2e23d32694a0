/**
 * The connections of one attempt to its dest, and how they come about: hello, offer, accept, bulk.
 * Until `open` resolves nothing of the guest has been touched on either side, and a connection that
 * is lost ends the attempt. Afterwards it is made anew.
 */
import {
  CloseCode,
  limits,
  type Agreement,
  type ControlMessage,
  type ControlMessageOf,
} from "@vmferry/protocol";
import type { OpenBulkConnection } from "../adapters/bulk-socket.ts";
import type { Dialer } from "../adapters/peer-dialer.ts";
import { BulkLane } from "../transport/bulk-lane.ts";
import { ControlLink, expectAnswer, type ControlLinkOptions } from "./control-link.ts";
import { assertPageFile, assertSameShare } from "./fallback-check.ts";
import { SessionError } from "./session-error.ts";
import { LinkRepair } from "./link-repair.ts";

export interface PeerLinkOptions extends ControlLinkOptions {
  readonly dialer: Dialer;
  readonly offer: ControlMessageOf<"offer">;
  readonly traceParent: string | null;
  readonly random: () => number;
  readonly signal: AbortSignal;
}

const { PROTOCOL_VERSION } = limits;

interface Opened {
  readonly control: ControlLink;
  readonly agreement: Agreement;
  readonly accept: ControlMessageOf<"accept">;
  readonly bulk: readonly OpenBulkConnection[];
}

export class PeerLink {
  readonly control: ControlLink;
  /** One a bulk connection. */
  readonly bulk: readonly BulkLane[];
  readonly accept: ControlMessageOf<"accept">;
  readonly agreement: Agreement;
  readonly #repair: LinkRepair;

  private constructor(options: PeerLinkOptions, opened: Opened) {
    const { control, agreement, accept, bulk } = opened;
    const { migrationId, epoch, incarnation } = options.offer;
    this.control = control;
    this.agreement = agreement;
    this.accept = accept;
    this.bulk = bulk.map(() => new BulkLane());
    const { session } = accept;
    const repairOptions = {
      ...options,
      control,
      lanes: this.bulk,
      session: { migrationId, epoch, generation: 1, incarnation, session },
      bulkHello: (index: number) => bulkHello(migrationId, session, index),
    };
    this.#repair = new LinkRepair(repairOptions, bulk);
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
      refuseUnknown(offer, agreement);
      const mayTrace = traceParent !== null && agreement.features.has("trace");
      control.send(mayTrace ? { ...offer, traceparent: traceParent } : offer);
      const accept = await expectAnswer<ControlMessageOf<"accept">>(
        control.next("accept", "reject"),
      );
      if (offer.pageFileKey !== undefined) assertSameShare(accept);
      const { migrationId, bulkConnections } = offer;
      for (let index = 0; index < bulkConnections; index++) {
        bulk.push(await dialer.bulk(bulkHello(migrationId, accept.session, index), signal));
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

  /** Every connection is there. */
  get whole(): boolean {
    return !this.#repair.outage.lasts;
  }

  /** Calls back each time that the link is not whole any more, and that it is whole again. */
  onOutage({ onAway, onBack }: { onAway: () => void; onBack: () => void }): void {
    this.#repair.onAway = onAway;
    this.#repair.onBack = onBack;
    if (!this.whole) onAway();
  }

  /** Calls back when a connection has ended for good, or was away for too long. */
  onLost(callback: (reason: Error) => void): void {
    void this.#repair.lost.then(callback);
  }

  /** What the link is without from now on is downtime. */
  guestStandsStill(): void {
    this.#repair.outage.guestStandsStill();
  }

  /**
   * Resolves when the hand-over may be next. From then on a lost link is no failure but a question
   * to the dest, and not repaired here.
   */
  async handOver(): Promise<void> {
    while (!this.whole) await this.#repair.outage.over;
    this.#repair.stop();
    this.control.endSession();
  }

  send(message: ControlMessage): void {
    this.control.send(message);
  }

  close(): void {
    this.#repair.close();
    this.control.close(CloseCode.DONE);
  }
}

/** What an earlier dest cannot read is not sent to it. */
function refuseUnknown(offer: ControlMessageOf<"offer">, agreement: Agreement): void {
  const { guest, disks, launchRefusal, pageFileKey } = offer;
  const { features } = agreement;
  if (pageFileKey !== undefined) assertPageFile(agreement);
  if (disks.some(({ lazy }) => lazy === true) && !features.has("lazy-disk")) {
    const detail =
      'The dest agent does not have disk.handover "lazy": upgrade it, or leave that out.';
    throw new SessionError(detail, { code: "not-available" });
  }
  if (features.has("attached") || (guest.boot !== undefined && launchRefusal === undefined)) return;
  const text =
    "the dest's agent is too old for a guest that was attached, or boots from a disk; upgrade it";
  throw new SessionError(text, { code: "not-available" });
}

function bulkHello(
  migrationId: string,
  session: string,
  index: number,
): ControlMessageOf<"bulk-hello"> {
  return { kind: "bulk-hello", version: PROTOCOL_VERSION, migrationId, session, index };
}
