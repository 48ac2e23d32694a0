/**
 * A witness whose directory may not answer yet when the agent starts: guests that wait for their
 * agent do not wait for a share. It is opened when it is asked first, and again until that succeeds.
 */
import type { StunRef } from "@vmferry/protocol";
import type { Decision } from "./decision-codec.ts";
import { Witness } from "./witness.ts";

/** What sessions need of a witness. */
export type WitnessPort = Pick<Witness, "decide" | "prove" | "sees" | "forget" | "clean">;

export class LateWitness implements WitnessPort {
  readonly #open: () => Promise<WitnessPort>;
  #opening: Promise<WitnessPort> | null = null;

  constructor(sharedDir: string, open: (sharedDir: string) => Promise<WitnessPort> = openWitness) {
    this.#open = () => open(sharedDir);
  }

  async decide(stun: StunRef, decision: Decision, incarnation: string): Promise<Decision> {
    return (await this.#witness()).decide(stun, decision, incarnation);
  }

  async prove(migrationId: string): Promise<string> {
    return (await this.#witness()).prove(migrationId);
  }

  async sees(migrationId: string, proof: string): Promise<boolean> {
    return (await this.#witness()).sees(migrationId, proof);
  }

  async forget(migrationId: string): Promise<void> {
    await (await this.#witness()).forget(migrationId);
  }

  async clean(): Promise<number> {
    return (await this.#witness()).clean();
  }

  #witness(): Promise<WitnessPort> {
    this.#opening ??= this.#open().catch((error: unknown) => {
      this.#opening = null;
      throw error;
    });
    return this.#opening;
  }
}

function openWitness(sharedDir: string): Promise<WitnessPort> {
  return Witness.open(sharedDir);
}
