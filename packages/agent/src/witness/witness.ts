/**
 * A third party to a hand-over: a directory that both hosts mount, over NFS for example. Where one
 * side does not answer any more, the other asks the witness who may run the guest. For each stun
 * the first of `taken` and `revoked` stands for ever.
 *
 * A dead mount may keep any call of the file system from returning, so each method has a limit of
 * time. No clock takes part in a decision: a call that is late has failed to answer, nothing else.
 */
import { randomBytes } from "node:crypto";
import { InvariantError, systemClock, type Clock } from "@vmferry/core";
import type { StunRef } from "@vmferry/protocol";
import type { Decision } from "./decision-codec.ts";
import { SharedFiles } from "./shared-files.ts";
import { TimedTurns } from "./timed-turns.ts";
import { WitnessDirectory } from "./witness-directory.ts";
import { asWitnessError, witnessUnreachable } from "./witness-error.ts";
import type { WitnessFiles } from "./witness-files.ts";
import { DECISION_NAME, NEW_NAME, PROOF_NAME } from "./witness-names.ts";

const TIMEOUT_MS = 5000;
const DAY_MS = 24 * 60 * 60 * 1000;
const CLEANED_ENTRIES_MAX = 10_000;
const PROOF_PATTERN = /^[0-9a-f]{64}$/;

export interface WitnessCallOptions {
  readonly timeoutMs?: number;
}

export interface WitnessOptions extends WitnessCallOptions {
  readonly files?: WitnessFiles;
  readonly clock?: Clock;
}

/**
 * Every method rejects with `witness-unreachable`, `witness-damaged` or `witness-not-usable`. One
 * call has its turn after the other; an agent has one witness a directory, so that a dead mount
 * takes a single thread of it.
 */
export class Witness {
  readonly #directory: WitnessDirectory;
  readonly #turns: TimedTurns;

  /** `sharedDir` has to be there. Rejects where its file system is not fit for a witness. */
  static async open(sharedDir: string, options: WitnessOptions = {}): Promise<Witness> {
    const witness = new Witness(sharedDir, options);
    await witness.#inTime(options, () => witness.#directory.prepare());
    return witness;
  }

  private constructor(sharedDir: string, options: WitnessOptions) {
    this.#directory = new WitnessDirectory(sharedDir, options.files ?? new SharedFiles());
    this.#turns = new TimedTurns(options.clock ?? systemClock);
  }

  /**
   * Resolves to what stands for ever, and durably: this decision, or the one that came first.
   *
   * Whatever it rejects with, also when it was late, the decision may stand nevertheless or come to
   * stand later. So nothing follows from a rejection; whoever has to know decides again.
   *
   * Where the stun is not decided yet, the migration's proof has to be in the directory.
   */
  async decide(
    stun: StunRef,
    decision: Decision,
    incarnation: string,
    options: WitnessCallOptions = {},
  ): Promise<Decision> {
    const { migrationId, epoch, generation } = stun;
    const record = { decision, migrationId, epoch, generation, incarnation };
    return await this.#inTime(options, (signal) => this.#directory.decide(record, signal));
  }

  /** What stands for ever. Null is no ground to act: in the next moment something may stand. */
  async look(stun: StunRef, options: WitnessCallOptions = {}): Promise<Decision | null> {
    return await this.#inTime(options, () => this.#directory.look(stun));
  }

  /**
   * Leaves a proof in the directory, in the place of an earlier one, for the peer to see. Not for a
   * migration of which a stun may be in doubt: it says that decisions belong in this directory.
   */
  async prove(migrationId: string, options: WitnessCallOptions = {}): Promise<string> {
    const proof = randomBytes(32).toString("hex");
    await this.#inTime(options, () => this.#directory.prove(migrationId, proof));
    return proof;
  }

  /** Whether this is the directory in which the peer left that proof. */
  async sees(
    migrationId: string,
    proof: string,
    options: WitnessCallOptions = {},
  ): Promise<boolean> {
    if (!PROOF_PATTERN.test(proof)) return false;
    return await this.#inTime(options, () => this.#directory.sees(migrationId, proof));
  }

  /**
   * Removes the proof, when no stun of the migration is in doubt any more: what is decided stays,
   * but nothing else can be decided then.
   */
  async forget(migrationId: string, options: WitnessCallOptions = {}): Promise<void> {
    await this.#inTime(options, () => this.#directory.forget(migrationId));
  }

  /**
   * Housekeeping: removes what is older, of any migration, and looks at 10,000 entries at most.
   * Returns how many went. Proofs go first, so that nothing can be decided anew of which the
   * decision has gone. A decision that is asked for meanwhile waits for one entry, not for all.
   */
  async clean(olderThanMs = 30 * DAY_MS): Promise<number> {
    const names = await this.#inTime({}, () => this.#directory.list(CLEANED_ENTRIES_MAX));
    const beforeMs = (await this.#inTime({}, () => this.#directory.nowMs())) - olderThanMs;
    let count = 0;
    for (const pattern of [NEW_NAME, PROOF_NAME, DECISION_NAME]) {
      for (const name of names.filter((one) => pattern.test(one))) {
        if (await this.#inTime({}, () => this.#directory.removeOld(name, beforeMs))) count++;
      }
      await this.#inTime({}, () => this.#directory.sync());
    }
    return count;
  }

  async #inTime<T>(
    { timeoutMs = TIMEOUT_MS }: WitnessCallOptions,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { path } = this.#directory;
    const late = (): Error => witnessUnreachable(path, `no answer within ${timeoutMs} ms`);
    try {
      return await this.#turns.run(work, { timeoutMs, late });
    } catch (error) {
      throw error instanceof InvariantError ? error : asWitnessError(path, error);
    }
  }
}
