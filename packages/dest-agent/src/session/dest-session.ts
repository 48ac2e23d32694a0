/**
 * One guest on its way in: what is received of it, and the order in which it becomes ours. Whose it
 * is is `DestHandOver`'s alone to change.
 */
import { randomBytes } from "node:crypto";
import { Deferred, messageOf } from "@vmferry/core";
import {
  failureOf,
  haltedText,
  LinkOutage,
  migrationLogger,
  ProblemError,
  PeerError,
  SessionChannel,
  type Channel,
  type Logger,
} from "@vmferry/agent";
import {
  CloseCode,
  limits,
  type ControlMessageOf,
  type PageLaneName,
  type StunRef,
} from "@vmferry/protocol";
import { ArrivalReport } from "./arrival-report.ts";
import { arrivingMemory } from "./arriving-memory.ts";
import { sameSecret, type BulkLink } from "./bulk-link.ts";
import { BulkLinks } from "./bulk-links.ts";
import { clearOffer } from "./clear-offer.ts";
import { DestHandOver } from "./dest-hand-over.ts";
import type { Arrival, DestSessionPorts } from "./dest-session-ports.ts";
import { discardSurely } from "./discard-surely.ts";
import { agentStopped, notDue } from "./session-errors.ts";
import {
  doubtText,
  heldDiskText,
  lackingText,
  lostDiskText,
  lostMemoryText,
  stuckText,
} from "./doubt-text.ts";
import type { GuestHolding } from "./guest-holding.ts";
import type { MemoryFetch } from "./memory-fetch.ts";
import { refuseOutdated } from "./offer-check.ts";
import { OpenDoubts } from "./open-doubts.ts";
import type { BlocksOwner, PageLink, PagesOwner } from "./page-link.ts";
import type { ArrivingLater, Reception } from "./reception.ts";
import { seesWitness } from "./witness-claim.ts";

const CONTROL = "control";

export class DestSession implements PagesOwner, BlocksOwner {
  /** Bulk connections show it. */
  readonly secret = randomBytes(32).toString("hex");
  readonly handOver: DestHandOver;
  readonly uuid: string;
  readonly guestName: string;
  readonly #ports: DestSessionPorts;
  readonly #arrival: Arrival;
  readonly #logger: Logger;
  readonly #report: ArrivalReport;
  readonly #links: BulkLinks;
  readonly #outage: LinkOutage;
  /** Null before the session has begun. */
  #channel: SessionChannel | null = null;
  #reception: Reception | null = null;
  /** That comes after the hand-over. */
  readonly #memory: MemoryFetch;
  readonly #doubts: OpenDoubts;
  /** Disks that follow the guest; null without any. */
  #lazy: ArrivingLater | null = null;
  /** Until the guest is ours or refused. */
  #holding: GuestHolding | null = null;
  #isWitnessed = false;
  /** Something of the guest takes its time to go. */
  readonly #stuck = new Deferred();
  #cleared: Promise<void> = Promise.resolve();

  constructor(ports: DestSessionPorts, arrival: Arrival) {
    const { offer, journal } = arrival;
    const { migrationId, epoch, incarnation } = offer;
    this.uuid = offer.uuid;
    this.guestName = offer.guest.name;
    this.#ports = ports;
    this.#arrival = arrival;
    const { traceparent: traceParent, guest } = offer;
    this.#logger = migrationLogger(ports.logger, { migrationId, guest: guest.name, traceParent });
    this.#report = new ArrivalReport(ports.store, migrationId, ports.clock);
    this.#links = new BulkLinks({
      count: offer.bulkConnections,
      onFrame: (index, frame) => {
        this.#reception?.arrived(index, frame);
      },
      onFailed: (error) => {
        this.fail(error);
      },
    });
    this.#doubts = new OpenDoubts((text) => {
      this.#showDoubt(text);
    });
    this.#memory = arrivingMemory(ports, arrival, {
      ...{ logger: this.#logger, report: this.#report },
      onLost: (lost) => {
        this.#memoryLost(lost);
      },
    });
    this.#outage = new LinkOutage(ports.clock, (reason) => {
      this.#channel?.end(reason);
    });
    const stun: StunRef = { migrationId, epoch, generation: 1 };
    this.handOver = new DestHandOver(
      {
        journal,
        clock: ports.clock,
        logger: this.#logger,
        witness: ports.witness,
        isWitnessed: () => this.#isWitnessed,
        holding: () => this.#holding,
        fetch: () => this.#fetchRest(),
        lacks: () => lackingText(this.#lazy),
        onState: ({ phase }) => {
          if (phase === "prepared") this.#report.prepared();
          const { stuckBecause } = this.handOver;
          if (stuckBecause !== null) this.#showStuck(stuckText(stuckBecause));
        },
        onStunned: () => {
          this.#report.stunned();
        },
        onOther: (message) => {
          this.fail(notDue(message));
        },
      },
      { stun, incarnation },
    );
  }

  get bulkConnections(): number {
    return this.#links.count;
  }

  /**
   * Runs until the guest is ours or refused for ever, or the agent stops. Rejects only before anything
   * was promised; what was made for the guest may take longer to go then: `cleared`.
   */
  async run(): Promise<void> {
    try {
      await this.#reserve();
    } catch (error) {
      this.#cleared = this.#clear(error);
      await Promise.race([this.#cleared, this.#stuck.promise]);
      throw error;
    }
    try {
      void this.#load();
      await this.#settled();
    } finally {
      await this.#arrival.journal.close();
    }
  }

  /** After `run` has rejected: resolves when nothing of the guest is left, or is left to the next life. */
  get cleared(): Promise<void> {
    return this.#cleared;
  }

  /**
   * A source that offers a guest anew has rolled the last attempt back, although its ABORT did not
   * arrive: a journal that had handed the guest over would not offer it. So that attempt is refused
   * at once, and its QEMU makes room.
   */
  supersede({ epoch, incarnation }: ControlMessageOf<"offer">): void {
    const { stun } = this.handOver.claim;
    if (incarnation !== this.handOver.claim.incarnation || epoch < stun.epoch) return;
    this.fail(new PeerError("the source began anew", { code: "peer-lost", closeCode: null }));
  }

  /** A bulk connection of this session. */
  attach(index: number, link: BulkLink): void {
    this.#links.attach(index, link);
  }

  /** The source goes on over another control connection; false when there is nothing to go on with. */
  resume(channel: Channel, session: string, received: number): boolean {
    const ours = this.#channel;
    if (ours === null || ours.ended || !sameSecret(session, this.secret)) return false;
    channel.send({ kind: "received", received: ours.receivedCount });
    ours.resume(channel, received);
    this.#outage.back(CONTROL);
    this.#report.reconnected();
    this.#logger.info("the source is back over another control connection");
    return true;
  }

  claimMatches(hello: ControlMessageOf<"pages-hello" | "blocks-hello">): boolean {
    return this.handOver.belongsTo(hello);
  }

  attachPages(lane: PageLaneName, attempt: number, link: PageLink): void {
    this.#memory.attachPages(lane, attempt, link);
  }

  attachBlocks(attempt: number, link: PageLink): void {
    if (this.#lazy === null) link.close(CloseCode.SESSION_UNKNOWN);
    else this.#lazy.attachBlocks(attempt, link);
  }

  /** Refuses, where that is still possible. The first reason is the one that is told. */
  fail(error: unknown): void {
    this.handOver.fail(error);
  }

  /** The agent stops. Resolves when the refusal is done, where refusing was still possible. */
  async stop(): Promise<void> {
    this.fail(agentStopped());
    await this.handOver.stop();
  }

  /** Everything that can speak against the guest is found before ACCEPT. */
  async #reserve(): Promise<void> {
    const { offer, agreement, channel } = this.#arrival;
    const { migrationId, epoch } = offer;
    refuseOutdated(this.#arrival.journal.last, offer);
    this.#isWitnessed = await seesWitness(offer, this.#ports.witness, this.#logger);
    const reception = await this.#ports.openReception({
      offer,
      agreement,
      onReturnPath: (bytes) => {
        this.handOver.send({ kind: "return-path", bytes });
      },
      onFetching: (fetching, qemu) => {
        this.#memory.begin(fetching, qemu);
      },
      onCredit: (bytes) => {
        this.handOver.send({ kind: "credit", bytes });
      },
      onFailed: (error) => {
        this.fail(error);
      },
      onLazyFailed: (error) => {
        this.#lazyFailed(error);
      },
      onLazyStuck: (reason) => {
        this.#doubts.set("export", reason === null ? null : heldDiskText(reason));
      },
      onLeft: (holding) => {
        this.#holding = holding;
      },
    });
    this.#reception = reception;
    this.#lazy = reception.lazy;
    this.#holding = reception.holding;
    await this.handOver.reserve();
    this.#report.begin(offer, reception.counters);
    this.handOver.watch(reception.holding);
    const accept: ControlMessageOf<"accept"> = {
      kind: "accept",
      migrationId,
      epoch,
      session: this.secret,
      creditBytes: limits.CREDIT_BYTES_MAX,
      qemuVersion: reception.qemuVersion,
      postCopyRefusal: reception.postCopyRefusal,
      witness: this.#isWitnessed,
    };
    this.#begin(channel, accept);
  }

  /** Nothing was promised, and nothing has come: the guest is its source's, which hears why at once. */
  async #clear(why: unknown): Promise<void> {
    const { handOver } = this;
    const { journal } = this.#arrival;
    await clearOffer({ reception: this.#reception, handOver, journal, logger: this.#logger });
    if (this.#stuck.settled && !handOver.isLeft) this.#report.failed(failureOf(why, "dest"));
    this.#holding = null;
  }

  #showStuck(detail: string): void {
    this.#report.beginUnlessBegun(this.#arrival.offer);
    this.#report.inDoubt(detail);
    this.#stuck.resolve();
  }

  /** With `accept` the session begins: from here on a lost connection may be replaced. */
  #begin(channel: Channel, accept: ControlMessageOf<"accept">): void {
    try {
      channel.send(accept);
    } catch (error) {
      this.#logger.debug({ reason: messageOf(error) }, "the source has gone meanwhile");
    }
    this.#channel = new SessionChannel(channel, (reason) => {
      this.#logger.warn(
        { reason: reason.message },
        "control connection lost; the source may return",
      );
      // Nothing waits any more for what is settled; it may still be asked for.
      if (!this.handOver.settled) this.#outage.lost(CONTROL);
    });
    void this.#channel.closed.then(() => {
      this.#outage.stop();
    });
    this.handOver.attach(this.#channel);
  }

  async #load(): Promise<void> {
    try {
      const digests = await this.#reception!.load(() => {
        this.#report.ramEnded();
      });
      this.#report.digests(digests);
      await this.handOver.loaded(digests);
    } catch (error) {
      this.fail(error);
    }
  }

  async #fetchRest(): Promise<void> {
    if (this.#lazy !== null) this.#report.disksFollow(this.#lazy);
    await Promise.all([this.#fetchMemory(), this.#lazy?.whole()]);
  }

  async #fetchMemory(): Promise<void> {
    const memory = this.#memory;
    if (!memory.hasBegun) return;
    this.#report.fetching(memory);
    if (memory.fallback !== null) this.#report.file(memory.fallback);
    const whole = memory.whole((lost) => {
      this.#memoryLost(lost);
    });
    this.#report.whole(await whole);
    this.#reception?.memoryIsWhole();
  }

  /** Before the hand-over the source keeps the guest. One that was taken is told of as soon as it runs. */
  #memoryLost(lost: Error | null): void {
    const { phase } = this.handOver.state;
    if (phase === "fetching") this.#doubts.set("memory", lost && lostMemoryText(lost));
    else if (lost !== null && !this.#isOurs) {
      this.fail(new ProblemError(lost.message, { code: "dest-qemu-failed" }, { cause: lost }));
    }
  }

  /** A guest that is down by now waits for a person all the same. */
  #showDoubt(text: string | null): void {
    const { state, claim } = this.handOver;
    const isDown = text === null && state.phase === "down";
    this.#report.hindered(isDown ? doubtText(state, claim.stun.migrationId) : text);
  }

  /** Before the hand-over the source keeps the guest; after it a person has to look. */
  #lazyFailed(error: unknown): void {
    if (!this.#isOurs) this.fail(error);
    else this.#doubts.set("disks", lostDiskText(error));
  }

  get #isOurs(): boolean {
    const { phase } = this.handOver.state;
    return phase === "taken" || phase === "fetching" || phase === "down" || phase === "owner";
  }

  async #settled(): Promise<void> {
    const { handOver } = this;
    try {
      await Promise.race([handOver.until("owner", "refused", "down"), handOver.left]);
      // Only then are its actions done: the QEMU of a refusal is gone, and the reason known.
      await handOver.idle();
      await this.#close();
      if (handOver.state.phase === "down") await this.#awaitPerson();
    } catch (error) {
      await this.#alarm(error);
      return;
    }
    if (handOver.isLeft) return;
    if (handOver.state.phase === "owner") this.#report.completed();
    else this.#report.failed(handOver.failure);
    this.#holding = null;
  }

  /** The guest is ours and does not run. */
  async #awaitPerson(): Promise<void> {
    const { handOver } = this;
    // It never ran, perhaps: then nobody has begun to fetch what its disks lack.
    this.#lazy?.whole().catch(() => undefined);
    this.#report.inDoubt(doubtText(handOver.state, handOver.claim.stun.migrationId));
    await handOver.until("owner");
    await handOver.idle();
  }

  /** Nothing can be recorded any more. What was not taken has never run, and nobody was promised it. */
  async #alarm(error: unknown): Promise<void> {
    const { phase } = this.handOver.state;
    const mayHaveRun = this.#isOurs;
    this.#logger.error({ err: error, phase }, "the journal failed; start this agent anew");
    if (mayHaveRun) this.#holding!.inDoubt();
    const isLeft = !mayHaveRun && (await this.#discard()) === "left";
    await this.#close();
    this.handOver.close(CloseCode.SESSION_ENDED);
    if (isLeft) return;
    if (mayHaveRun) this.#report.halted(haltedText(error));
    else this.#report.failed({ code: "journal-failed", detail: messageOf(error) });
  }

  async #discard(): Promise<"discarded" | "left"> {
    const onStuck = (reason: string): void => {
      this.#showStuck(stuckText({ at: "end", reason }));
    };
    const { clock } = this.#ports;
    const options = { clock, logger: this.#logger, signal: this.handOver.stopping, onStuck };
    return await discardSurely(this.#holding, options).catch((error: unknown) => {
      this.#logger.error({ err: error }, "what was made for a guest that does not come stays");
      return "discarded";
    });
  }

  async #close(): Promise<void> {
    this.#links.close();
    this.#memory.close();
    this.#outage.stop();
    await this.#reception?.close();
    // The hand-over stays, to answer a source that asks again; what grows with the guest goes.
    this.#reception = null;
  }
}
