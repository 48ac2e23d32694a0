/**
 * What `Idempotency-Key` headers began, so that a client which has not seen the answer may ask
 * again: the same key with the same body is the same migration, and with another body a mistake.
 *
 * A key is kept for a day, the last thousand at most, in memory alone. A request that was refused
 * began nothing and leaves no key. A restarted agent knows no keys: what was still being copied has
 * ended by then, and what was handed over keeps its guest from being migrated a second time.
 */
import { createHash } from "node:crypto";
import type { Clock } from "@vmferry/core";
import { ProblemError } from "../problem-error.ts";

const KEPT_MS = 86_400_000;
const KEYS_MAX = 1000;

interface Begun {
  readonly bodyHash: string;
  readonly atMs: number;
  /** Of the migration; settled when it is known whether there is one. */
  readonly id: Promise<string>;
}

export class IdempotencyKeys {
  readonly #clock: Clock;
  /** By key, the oldest first. */
  readonly #begun = new Map<string, Begun>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The id that `begin` gave when the key came first; rejects with `idempotency-conflict`. */
  async once(key: string, body: unknown, begin: () => Promise<string>): Promise<string> {
    this.#dropOld();
    const bodyHash = hashOf(body);
    const known = this.#begun.get(key);
    if (known === undefined) return this.#begin(key, bodyHash, begin);
    if (known.bodyHash === bodyHash) return known.id;
    const detail = "This Idempotency-Key came with another body before; take a new one.";
    const errors = [{ field: "idempotency-key", detail: "belongs to another request" }];
    throw new ProblemError(detail, { code: "idempotency-conflict", errors });
  }

  async #begin(key: string, bodyHash: string, begin: () => Promise<string>): Promise<string> {
    const begun = { bodyHash, atMs: this.#clock.nowMs(), id: begin() };
    this.#begun.set(key, begun);
    try {
      return await begun.id;
    } catch (error) {
      if (this.#begun.get(key) === begun) this.#begun.delete(key);
      throw error;
    }
  }

  #dropOld(): void {
    const nowMs = this.#clock.nowMs();
    for (const [key, { atMs }] of this.#begun) {
      if (this.#begun.size < KEYS_MAX && nowMs - atMs <= KEPT_MS) return;
      this.#begun.delete(key);
    }
  }
}

/** The order in which somebody writes properties down means nothing. */
function hashOf(body: unknown): string {
  const canonical = JSON.stringify(body, (_, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
  return createHash("sha256").update(canonical).digest("base64");
}
