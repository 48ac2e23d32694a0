/** Every hand-over that this dest agent knows of, and the first words with a source that dials in. */
import type { WebSocket } from "ws";
import {
  failureOf,
  ProblemError,
  type Channel,
  type GuestRegistry,
  type JournalShelf,
  type ListPage,
  type MigrationService,
  type WitnessPort,
} from "@vmferry/agent";
import {
  agree,
  CloseCode,
  closeCodeOf,
  ourHello,
  type Agreement,
  type ControlMessageOf,
  type MigrationList,
  type MigrationObject,
} from "@vmferry/protocol";
import { sleep } from "@vmferry/core";
import { removeLeftPageFiles } from "../postcopy/left-page-files.ts";
import type { EarlierAttempt, Probe } from "../preflight/probed-guest.ts";
import { admitBulk } from "./bulk-link.ts";
import type { DestHandOver } from "./dest-hand-over.ts";
import { DestSession } from "./dest-session.ts";
import type { DestSessionPorts } from "./dest-session-ports.ts";
import type { LazyDisks } from "./lazy-disks.ts";
import { admitBlocks, admitPages } from "./page-link.ts";
import { recoverGuests } from "./recover-guests.ts";
import type { MemoryFetch } from "./memory-fetch.ts";
import type { RecoveredArrival } from "./recovered-arrival.ts";
import { agentStopped } from "./session-errors.ts";
import { stuckText } from "./doubt-text.ts";

/** Ended hand-overs that can still answer a source which asks again. */
const ENDED_MAX = 1000;
const GREETING_MS_MAX = 10_000;
/** Of hand-overs that a restart finds, and of which nothing is to stay. */
const REFUSED: readonly string[] = ["refused", "none"];
/** For an earlier attempt of a guest to be gone, before another offer of it is refused. */
const MAKE_ROOM_MS_MAX = 20_000;

export interface DestSessionsPorts extends DestSessionPorts {
  readonly journals: Pick<JournalShelf<"dest">, "take">;
  readonly witness: WitnessPort | null;
  readonly software: string;
  /** Whether a guest could come; never rejects. */
  readonly answerProbe: (
    probe: Probe,
    earlier: EarlierAttempt,
  ) => Promise<ControlMessageOf<"probe-result">>;
  /** Of the process. */
  readonly incarnation: string;
}

interface Known {
  readonly session: DestSession | RecoveredArrival;
  readonly ended: Promise<unknown>;
  /** Nothing of it holds a place any more. */
  isOver: boolean;
}

export interface RecoverOptions {
  readonly registry: GuestRegistry;
  readonly journals: JournalShelf<"dest">;
  readonly imageDir: string;
  /** Guests whose memory was arriving take pages from then on. */
  readonly takeUp: () => Promise<readonly MemoryFetch[]>;
  /** Before: QEMU may answer nothing until its disks are served. */
  readonly takeUpDisks: () => Promise<readonly LazyDisks[]>;
}

interface Greeting {
  readonly first: ControlMessageOf<"offer" | "resume" | "probe">;
  readonly agreement: Agreement;
}

export class DestSessions implements MigrationService {
  readonly #ports: DestSessionsPorts;
  readonly #known = new Map<string, Known>();
  readonly #ended: string[] = [];
  /** Of guests of an earlier life. */
  #fetches: readonly MemoryFetch[] = [];
  #disks: readonly LazyDisks[] = [];
  #recovered: Promise<unknown> = Promise.resolve();
  #isStopping = false;

  constructor(ports: DestSessionsPorts) {
    this.#ports = ports;
  }

  /**
   * Finds the guests of an earlier life, and goes on with what it left undone. Resolves with the
   * migrations that are not refused: what they have of images is theirs. Null where that cannot be
   * told of all of them. Meanwhile page lanes are admitted, and control connections wait.
   */
  recover(where: RecoverOptions): Promise<ReadonlySet<string> | null> {
    const recovered = this.#recover(where);
    this.#recovered = recovered.catch(() => undefined);
    return recovered;
  }

  async #recover(where: RecoverOptions): Promise<ReadonlySet<string> | null> {
    this.#disks = await where.takeUpDisks();
    this.#fetches = await where.takeUp();
    const fetchOf = (arrival: Parameters<MemoryFetch["isOf"]>[0]): MemoryFetch | null =>
      this.#fetches.find((fetch) => fetch.isOf(arrival)) ?? null;
    const disksOf = (arrival: Parameters<LazyDisks["isOf"]>[0]): LazyDisks | null =>
      this.#disks.find((disks) => disks.isOf(arrival)) ?? null;
    const goOn = (arrival: RecoveredArrival): void => {
      this.#follow(arrival.handOver.claim.stun.migrationId, arrival, arrival.run());
    };
    const ports = { ...this.#ports, ...where, fetchOf, disksOf };
    const { arrivals, unjudged } = await recoverGuests(ports, goOn);
    arrivals.forEach(goOn);
    const handOvers = arrivals.map(({ handOver }) => handOver);
    const refused = handOvers.filter(({ state }) => REFUSED.includes(state.phase));
    const gone = await this.#gone(refused);
    this.#removeLeft(handOvers);
    if (unjudged === null) return null;
    const open = handOvers.filter((handOver) => !gone.has(handOver));
    return new Set([...unjudged, ...open.map(({ claim }) => claim.stun.migrationId)]);
  }

  /** Those of which nothing is left. A QEMU that does not end keeps its images, and nobody waiting. */
  async #gone(refused: readonly DestHandOver[]): Promise<ReadonlySet<DestHandOver>> {
    const gone = new Set<DestHandOver>();
    if (refused.length === 0) return gone;
    const waited = new AbortController();
    const late = sleep(this.#ports.clock, MAKE_ROOM_MS_MAX, waited.signal);
    const all = refused.map(async (handOver) => {
      await handOver.idle();
      gone.add(handOver);
    });
    await Promise.race([Promise.all(all), late]);
    waited.abort();
    return new Set(gone);
  }

  /** Not waited for: the share may hang. */
  #removeLeft(handOvers: readonly DestHandOver[]): void {
    const { sharedDir, logger } = this.#ports;
    if (sharedDir === null) return;
    const over = handOvers
      .filter(({ state }) => state.phase === "owner" || state.phase === "refused")
      .map(({ claim }) => claim.stun);
    void removeLeftPageFiles({ sharedDir, over, logger });
  }

  list(page: ListPage): MigrationList {
    return this.#ports.store.list(page);
  }

  get(id: string): MigrationObject {
    return this.#ports.store.get(id);
  }

  wait(id: string, timeoutMs: number, signal?: AbortSignal): Promise<MigrationObject> {
    return this.#ports.store.wait(id, timeoutMs, signal);
  }

  admitBulk(socket: WebSocket): void {
    admitBulk(socket, this.#ports.clock, (migrationId) => {
      const session = this.#known.get(migrationId)?.session;
      return session instanceof DestSession ? session : undefined;
    });
  }

  admitPages(socket: WebSocket): void {
    admitPages(socket, this.#ports.clock, (migrationId) => {
      const session = this.#known.get(migrationId)?.session;
      if (session instanceof DestSession) return session;
      return this.#fetches.find((fetch) => fetch.isOf({ migrationId, guest: "" }));
    });
  }

  admitBlocks(socket: WebSocket): void {
    admitBlocks(socket, this.#ports.clock, (migrationId) => {
      const session = this.#known.get(migrationId)?.session;
      if (session instanceof DestSession) return session;
      return this.#disks.find((disks) => disks.isOf({ migrationId, guest: "" }));
    });
  }

  async admitControl(channel: Channel): Promise<void> {
    // Before that nobody knows what is due.
    await this.#recovered;
    const { clock, logger } = this.#ports;
    const cancelTimer = clock.after(GREETING_MS_MAX, () => {
      channel.close(CloseCode.PROTOCOL_VIOLATION);
    });
    try {
      const { first, agreement } = await this.#greet(channel);
      if (first.kind === "probe") {
        channel.send(await this.#ports.answerProbe(first, { isOpen: this.#isOpen(first) }));
        // The source ends it, in the time that greetings have.
        await channel.closed;
        return;
      }
      cancelTimer();
      if (first.kind === "resume") this.#resume(channel, first);
      else await this.#begin(channel, first, agreement);
    } catch (error) {
      const { code, detail } = failureOf(error, "dest");
      logger.warn({ code, reason: detail }, "a source was turned away");
      reject(channel, code, detail);
      channel.close(closeCodeOf(error));
    } finally {
      cancelTimer();
    }
  }

  async resolve(id: string, owner: "source" | "dest"): Promise<MigrationObject> {
    const { store } = this.#ports;
    const object = store.get(id);
    const known = this.#known.get(id);
    if (known === undefined) {
      const why =
        object.phase === "in-doubt"
          ? (object.error?.detail ?? "Nobody can go on with it.")
          : `The migration is ${object.phase}: nothing is in doubt.`;
      throw new ProblemError(why, { code: "not-in-doubt" });
    }
    await known.session.handOver.settle(owner);
    return store.get(id);
  }

  /** The agent stops: whatever may still be refused is, and nothing begins. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await Promise.all([...this.#known.values()].map(({ session }) => session.stop()));
  }

  async #greet(channel: Channel): Promise<Greeting> {
    const { software, incarnation } = this.#ports;
    const theirs = await channel.next("hello");
    const ours = ourHello({ software, incarnation });
    // Both sides compute the agreement, so each can say why there is none.
    channel.send(ours);
    const agreement = agree(ours, theirs);
    const mayProbe = agreement.features.has("probe");
    const first = await (mayProbe
      ? channel.next("offer", "resume", "probe")
      : channel.next("offer", "resume"));
    return { first, agreement };
  }

  async #begin(
    channel: Channel,
    offer: ControlMessageOf<"offer">,
    agreement: Agreement,
  ): Promise<void> {
    const { journals, store } = this.#ports;
    // Also those of earlier lives, which are listed.
    if (this.#known.has(offer.migrationId) || store.has(offer.migrationId)) {
      throw new ProblemError("This migration is known here already.", { code: "migration-active" });
    }
    await this.#makeRoom(offer, channel);
    if (this.#isStopping) throw agentStopped();
    const journal = await journals.take({ guest: offer.guest.name, uuid: offer.uuid });
    const session = new DestSession(this.#ports, { channel, offer, agreement, journal });
    const running = session.run();
    const over = running.catch(async () => {
      await session.cleared;
      // Of what may still be there the next life has to know.
      if (session.handOver.isLeft) return;
      this.#known.delete(offer.migrationId);
    });
    this.#follow(offer.migrationId, session, over);
    await running;
  }

  /**
   * Earlier attempts of the same guest, which its source has rolled back, are refused first. Throws
   * `migration-active` where one of them takes too long to be gone.
   */
  async #makeRoom(offer: ControlMessageOf<"offer">, channel: Channel): Promise<void> {
    const earlier = [...this.#known.values()].filter(({ session }) => session.uuid === offer.uuid);
    if (earlier.length === 0) return;
    const settled = new AbortController();
    const late = sleep(this.#ports.clock, MAKE_ROOM_MS_MAX, settled.signal);
    try {
      for (const { session, ended } of earlier) {
        session.supersede(offer);
        const gone = goneOf(session, ended);
        const outcome = await Promise.race([gone, late.then(() => "late"), channel.closed]);
        if (outcome === "late") throw stillThere(session);
        if (outcome instanceof Error) throw outcome;
      }
    } finally {
      settled.abort();
    }
  }

  /** An attempt of the guest is here that an offer of it would wait for. */
  #isOpen({ guest }: Probe): boolean {
    const known = [...this.#known.values()];
    return known.some(({ session, isOver }) => !isOver && session.guestName === guest.name);
  }

  #resume(channel: Channel, message: ControlMessageOf<"resume">): void {
    const known = this.#known.get(message.migrationId)?.session;
    if (known?.handOver.belongsTo(message) === true) {
      if (message.session === null) {
        known.handOver.attach(channel);
        return;
      }
      if (known instanceof DestSession && known.resume(channel, message.session, message.received))
        return;
    }
    const text =
      message.session === null
        ? "the journals of this dest know nothing of the migration"
        : "this dest has no such session, or not any more";
    reject(channel, "migration-not-found", text);
    channel.close(CloseCode.SESSION_UNKNOWN);
  }

  #follow(id: string, session: DestSession | RecoveredArrival, running: Promise<unknown>): void {
    const ended = running
      .catch(() => undefined)
      .then(() => {
        known.isOver = true;
        this.#ended.push(id);
        if (this.#ended.length > ENDED_MAX) this.#known.delete(this.#ended.shift()!);
      });
    const known: Known = { session, ended, isOver: false };
    this.#known.set(id, known);
  }
}

function reject(channel: Channel, code: string, text: string): void {
  try {
    channel.send({ kind: "reject", code, text: text.slice(0, 1024) });
  } catch {
    // The source has gone; there is nobody to tell.
  }
}

async function goneOf(
  { handOver }: DestSession | RecoveredArrival,
  ended: Promise<unknown>,
): Promise<void> {
  await handOver.idle();
  if (handOver.isEnding) await ended;
}

function stillThere({ handOver, guestName }: DestSession | RecoveredArrival): ProblemError {
  const { stuckBecause, state, claim } = handOver;
  const why = stuckBecause === null ? `It is ${state.phase}.` : stuckText(stuckBecause);
  return new ProblemError(
    `An earlier attempt to bring guest ${guestName} here, migration ${claim.stun.migrationId}, is not ` +
      `gone after ${MAKE_ROOM_MS_MAX / 1000} s. Offer the guest again when it is. ${why}`,
    { code: "migration-active" },
  );
}
