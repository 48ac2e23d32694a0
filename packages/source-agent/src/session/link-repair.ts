/**
 * Keeps the connections of an attempt alive: dials anew whichever is lost, and goes on over it with
 * what has not come through. One that is lost for good, or for too long, is told by `onLost`.
 *
 * The loss of the control connection, which has the heartbeat that both sides judge by, is taken for
 * that of all: a link that swallows everything would be noticed on the others only later.
 */
import { LinkOutage, mayComeBack, PeerError, type Logger } from "@vmferry/agent";
import { Deferred, messageOf, type Clock } from "@vmferry/core";
import type { ControlMessageOf } from "@vmferry/protocol";
import type { OpenBulkConnection } from "../adapters/bulk-socket.ts";
import type { Dialer } from "../adapters/peer-dialer.ts";
import type { BulkLane } from "../transport/bulk-lane.ts";
import type { ControlLink, ResumedSession } from "./control-link.ts";
import { redial } from "./redial.ts";

/** Where the dest ended a bulk connection, the reason comes on the control connection. */
const REASON_MS_MAX = 500;
const CONTROL = "control";

export interface LinkRepairOptions {
  readonly dialer: Dialer;
  readonly control: ControlLink;
  readonly lanes: readonly BulkLane[];
  readonly session: ResumedSession;
  readonly bulkHello: (index: number) => ControlMessageOf<"bulk-hello">;
  readonly clock: Clock;
  readonly random: () => number;
  readonly logger: Logger;
}

export class LinkRepair {
  readonly outage: LinkOutage;
  /** Why the link will not come back; never rejects. */
  readonly lost: Promise<Error>;
  /** The link was whole, and is not any more. */
  onAway: () => void = () => undefined;
  /** The link is whole again. */
  onBack: () => void = () => undefined;
  readonly #lost = new Deferred<Error>();
  readonly #options: LinkRepairOptions;
  readonly #connections: (OpenBulkConnection | null)[];
  readonly #stop = new AbortController();
  /** Of all lanes, before the present outage. */
  #resentBytes = 0;

  /** Begins with connections that are open: one a lane. */
  constructor(options: LinkRepairOptions, connections: readonly OpenBulkConnection[]) {
    this.#options = options;
    this.#connections = connections.map(() => null);
    this.lost = this.#lost.promise;
    this.outage = new LinkOutage(options.clock, (reason) => {
      this.#giveUp(reason);
    });
    options.control.beginSession((reason) => {
      this.#controlLost(reason);
    });
    void options.control.closed.then((reason) => {
      this.#giveUp(reason);
    });
    for (const [index, connection] of connections.entries()) this.#use(index, connection);
  }

  /** Nothing is dialled any more; connections that are open stay. */
  stop(): void {
    this.#stop.abort();
    this.outage.stop();
  }

  close(): void {
    this.stop();
    for (const connection of this.#connections) connection?.close();
  }

  #use(index: number, connection: OpenBulkConnection): void {
    const { lanes } = this.#options;
    const lane = lanes[index]!;
    this.#connections[index] = connection;
    connection.onReceived((frames) => {
      if (this.#connections[index] !== connection) return;
      this.#orGiveUp(() => {
        lane.received(frames);
      });
    });
    void connection.closed.then((reason) => {
      if (this.#connections[index] === connection) this.#bulkLost(index, reason);
    });
    this.#orGiveUp(() => {
      lane.connect(connection);
    });
  }

  #bulkLost(index: number, reason: Error): void {
    if (this.#stop.signal.aborted) return;
    this.#connections[index] = null;
    this.#options.lanes[index]!.lost();
    if (!mayComeBack(reason)) {
      this.#giveUpSoon(reason);
      return;
    }
    this.#noteLost(`bulk ${index}`, reason);
    void this.#repairBulk(index);
  }

  #controlLost(reason: Error): void {
    if (this.#stop.signal.aborted) return;
    this.#noteLost(CONTROL, reason);
    void this.#repairControl();
    for (const [index, connection] of this.#connections.entries()) {
      if (connection === null) continue;
      connection.close(reason);
      this.#bulkLost(index, reason);
    }
  }

  async #repairControl(): Promise<void> {
    const { control, session } = this.#options;
    try {
      const done = await this.#redial((signal) => control.resumeSession(session, signal));
      if (done !== null) this.#noteBack(CONTROL);
    } catch (error) {
      const text = `the dest does not go on with the session: ${messageOf(error)}`;
      this.#giveUp(new PeerError(text, { code: "peer-lost", closeCode: null }, { cause: error }));
    }
  }

  async #repairBulk(index: number): Promise<void> {
    const { dialer, bulkHello } = this.#options;
    try {
      const connection = await this.#redial((signal) => dialer.bulk(bulkHello(index), signal));
      if (connection === null) return;
      if (this.#stop.signal.aborted) {
        connection.close();
        return;
      }
      this.#use(index, connection);
      this.#noteBack(`bulk ${index}`);
    } catch (error) {
      this.#giveUpSoon(error);
    }
  }

  #redial<T>(dial: (signal: AbortSignal) => Promise<T>): Promise<T | null> {
    return redial(dial, { ...this.#options, signal: this.#stop.signal });
  }

  #noteLost(connection: string, reason: Error): void {
    const { logger } = this.#options;
    const isFirst = !this.outage.lasts;
    this.outage.lost(connection);
    if (!isFirst) return;
    logger.warn({ connection, reason: reason.message }, "link lost; dialling again");
    this.onAway();
  }

  #noteBack(connection: string): void {
    const { lanes, logger } = this.#options;
    const tookMs = this.outage.back(connection);
    if (tookMs === null) return;
    const resentBytes = lanes.reduce((sum, lane) => sum + lane.resentBytes, 0);
    logger.info({ tookMs, resentBytes: resentBytes - this.#resentBytes }, "the link is back");
    this.#resentBytes = resentBytes;
    this.onBack();
  }

  #orGiveUp(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#giveUp(error);
    }
  }

  #giveUpSoon(reason: unknown): void {
    this.#options.clock.after(REASON_MS_MAX, () => {
      this.#giveUp(reason);
    });
  }

  #giveUp(reason: unknown): void {
    this.stop();
    this.#lost.resolve(reason instanceof Error ? reason : new Error(messageOf(reason)));
  }
}
