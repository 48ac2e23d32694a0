/** Asks the witness, where there is one, whether this host may take a guest: one question at a time. */
import { ProblemError, type Logger, type WitnessPort } from "@vmferry/agent";
import { messageOf, sleep, type Clock } from "@vmferry/core";
import type { ControlMessageOf, StunRef } from "@vmferry/protocol";

const AGAIN_MS = 1000;

export interface WitnessClaimPorts {
  readonly journal: { readonly incarnation: string };
  readonly clock: Clock;
  readonly logger: Logger;
  /** Null without a shared directory. */
  readonly witness: Pick<WitnessPort, "decide"> | null;
  /** The guest may be taken only after the witness has said so. */
  readonly isWitnessed: () => boolean;
}

export class WitnessClaim {
  readonly #ports: WitnessClaimPorts;
  readonly #onRevoked: (error: ProblemError) => void;
  #isAsking = false;

  /** `onRevoked`: it has given the guest back to its source. */
  constructor(ports: WitnessClaimPorts, onRevoked: (error: ProblemError) => void) {
    this.#ports = ports;
    this.#onRevoked = onRevoked;
  }

  /**
   * Until there is a word, or the guest is settled without it. False where it may not be taken by this
   * call: whatever settles it, or the call before this one, answers.
   */
  async until(
    stun: StunRef,
    { isOpen, onRefused }: { isOpen: () => boolean; onRefused: (reason: string) => void },
  ): Promise<boolean> {
    if (this.#isAsking) return false;
    this.#isAsking = true;
    try {
      while (isOpen()) {
        const reason = await this.ask(stun);
        if (reason === null) return true;
        if (isOpen()) onRefused(reason);
        await sleep(this.#ports.clock, AGAIN_MS);
      }
      return false;
    } finally {
      this.#isAsking = false;
    }
  }

  /** Null where the guest may be taken; else why not. */
  async ask(stun: StunRef): Promise<string | null> {
    const { witness, isWitnessed, journal, logger } = this.#ports;
    if (!isWitnessed()) return null;
    try {
      if (witness === null) throw new Error("VMFERRY_SHARED_DIR is not set any more");
      const word = await witness.decide(stun, "taken", journal.incarnation);
      if (word === "taken") return null;
    } catch (error) {
      logger.warn({ reason: messageOf(error) }, "the witness has no word; the guest waits");
      return messageOf(error);
    }
    const detail = "the witness says that the source has taken the guest back";
    this.#onRevoked(new ProblemError(detail, { code: "settled-by-witness" }));
    return detail;
  }
}

/** Whether both hosts have the same one. */
export async function seesWitness(
  { migrationId, witness: proof }: Pick<ControlMessageOf<"offer">, "migrationId" | "witness">,
  witness: Pick<WitnessPort, "sees"> | null,
  logger: Logger,
): Promise<boolean> {
  if (proof === null || witness === null) return false;
  try {
    return await witness.sees(migrationId, proof);
  } catch (error) {
    logger.warn({ err: error }, "the shared directory is no witness; going without");
    return false;
  }
}
