/** Every session of this dest agent, and the first words with a source that dials in. */
import type { WebSocket } from "ws";
import { failureOf, type ControlChannel } from "@vmferry/agent";
import {
  agree,
  CloseCode,
  closeCodeOf,
  ourHello,
  type Agreement,
  type ControlMessageOf,
} from "@vmferry/protocol";
import { admitBulk, sameSecret } from "./bulk-link.ts";
import { DestSession, type Arrival, type DestSessionPorts } from "./dest-session.ts";
import { checkOffer } from "./offer-check.ts";

/** Ended sessions that can still answer a source which asks again. */
const ENDED_MAX = 1000;
const GREETING_MS_MAX = 10_000;

export interface DestSessionsPorts extends DestSessionPorts {
  readonly software: string;
  readonly qemu: string;
}

interface Greeting {
  readonly first: ControlMessageOf<"offer" | "resume">;
  readonly agreement: Agreement;
}

export class DestSessions {
  readonly #ports: DestSessionsPorts;
  readonly #sessions = new Map<string, DestSession>();
  readonly #ended: string[] = [];

  constructor(ports: DestSessionsPorts) {
    this.#ports = ports;
  }

  admitBulk(socket: WebSocket): void {
    admitBulk(socket, (migrationId) => this.#sessions.get(migrationId));
  }

  async admitControl(channel: ControlChannel): Promise<void> {
    const { clock, logger } = this.#ports;
    const cancelTimer = clock.after(GREETING_MS_MAX, () => {
      channel.close(CloseCode.PROTOCOL_VIOLATION);
    });
    try {
      const { first, agreement } = await this.#greet(channel);
      cancelTimer();
      if (first.kind === "resume") this.#resume(channel, first);
      else await this.#begin({ channel, offer: first, agreement });
    } catch (error) {
      const { code, detail } = failureOf(error, "dest");
      logger.warn({ code, reason: detail }, "a source was turned away");
      reject(channel, code, detail);
      channel.close(closeCodeOf(error));
    } finally {
      cancelTimer();
    }
  }

  /** The agent stops: whatever may still be refused is. */
  async stop(): Promise<void> {
    await Promise.all([...this.#sessions.values()].map((session) => session.stop()));
  }

  async #greet(channel: ControlChannel): Promise<Greeting> {
    const { software, incarnation } = this.#ports;
    const theirs = await channel.next("hello");
    const ours = ourHello({ software, incarnation });
    // Both sides compute the agreement, so each can say why there is none.
    channel.send(ours);
    const agreement = agree(ours, theirs);
    const first = await channel.next("offer", "resume");
    return { first, agreement };
  }

  async #begin(arrival: Arrival): Promise<void> {
    const { channel, offer } = arrival;
    if (this.#sessions.has(offer.migrationId)) {
      reject(channel, "migration-active", "this migration is known here already");
      channel.close(CloseCode.DONE);
      return;
    }
    for (const known of this.#sessions.values()) await known.supersede(arrival);
    const session = new DestSession(this.#ports, arrival);
    this.#sessions.set(offer.migrationId, session);
    try {
      await checkOffer(offer, this.#ports.qemu);
      await session.run();
      this.#keepEnded(offer.migrationId);
    } catch (error) {
      this.#sessions.delete(offer.migrationId);
      throw error;
    }
  }

  #resume(channel: ControlChannel, { migrationId, session }: ControlMessageOf<"resume">): void {
    const known = this.#sessions.get(migrationId);
    if (known !== undefined && sameSecret(session, known.secret)) known.resume(channel);
    else {
      reject(channel, "migration-not-found", "this incarnation knows nothing of the migration");
      channel.close(CloseCode.SESSION_UNKNOWN);
    }
  }

  #keepEnded(migrationId: string): void {
    this.#ended.push(migrationId);
    if (this.#ended.length > ENDED_MAX) this.#sessions.delete(this.#ended.shift()!);
  }
}

function reject(channel: ControlChannel, code: string, text: string): void {
  try {
    channel.send({ kind: "reject", code, text: text.slice(0, 1024) });
  } catch {
    // The source has gone; there is nobody to tell.
  }
}
