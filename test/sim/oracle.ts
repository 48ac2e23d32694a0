/** What must hold in every instant: the invariants of the hand-over, looked at from outside. */
import type { DestHost } from "./dest-host.ts";
import type { Side } from "./life.ts";
import type { Machine } from "./machine.ts";
import type { SourceHost } from "./source-host.ts";
import type { Truth } from "./truth.ts";

export class Oracle {
  readonly #truth: Truth;
  #source: SourceHost | null = null;
  #dest: DestHost | null = null;
  #destRan = false;
  #memoryHit = false;
  #violation: string | null = null;

  constructor(truth: Truth) {
    this.#truth = truth;
  }

  /** The first promise that was broken. */
  get violation(): string | null {
    return this.#violation;
  }

  watch(source: SourceHost, dest: DestHost): void {
    this.#source = source;
    this.#dest = dest;
  }

  /** What a person finds out who looks at both hosts. */
  get owner(): Side {
    const isDests = ["taken", "complete"].includes(this.#dest?.journal.lastKind ?? "");
    return this.#destRan || isDests ? "dest" : "source";
  }

  broken(promise: string): void {
    this.#violation ??= promise;
  }

  /** A fault kills this QEMU: where it held the guest's memory, nobody is to blame for the loss. */
  killed(machine: Machine, kill: () => void): void {
    this.#memoryHit ||= machine.isAlive && this.#truth.isMemory(machine.memory);
    kill();
  }

  /** Guest code is about to be executed. */
  runs(machine: Machine): void {
    const { side } = machine;
    const [source, dest] = [this.#source, this.#dest];
    if (source?.machine?.isRunning === true && dest?.machine?.isRunning === true) {
      this.broken("I1: both sides execute the guest");
    }
    if (side === "dest") this.#destRan = true;
    else if (this.#destRan) this.broken("I1b: the source executes after the dest has");
    if (!this.#truth.isMemory(machine.memory)) {
      this.broken(`I3: the ${side} runs without the latest memory`);
    }
    const disk = side === "source" ? source?.disk : dest?.disk;
    if (source !== null && !this.#truth.isOn(disk ?? null)) {
      this.broken(`I3: the ${side} runs without an acknowledged write`);
    }
  }

  ended(): void {
    if (this.#source === null || this.#memoryHit || this.#holders().length > 0) return;
    this.broken("I5: memory is lost although no QEMU that held it was killed");
  }

  /** The journals have changed. */
  recorded(): void {
    const [source, dest] = [this.#source, this.#dest];
    if (source === null || dest === null) return;
    const { lastKind } = source.journal;
    const ownedBySource = lastKind === null && !source.journal.wasLost;
    const isSources = ownedBySource || ["begin", "kept", "reclaimed"].includes(lastKind ?? "");
    const isDests = ["taken", "complete"].includes(dest.journal.lastKind ?? "");
    if (isSources && isDests) this.broken("I4: both journals claim the guest");
    const isByDest = source.setting.share === null && !dest.journal.wasLost;
    if (lastKind === "reclaimed" && dest.machine?.isAlive === true && isByDest) {
      this.broken("the source takes back a guest whose QEMU is still at the dest");
    }
    if (isSources && !this.#truth.isOn(source.disk)) {
      this.broken("I2: the source owns without an acknowledged write");
    }
    if (isDests && !this.#truth.isOn(dest.disk)) {
      this.broken("I2: the dest owns without an acknowledged write");
    }
  }

  #holders(): Machine[] {
    const machines = [this.#source?.machine, this.#dest?.machine];
    return machines.filter(
      (machine): machine is NonNullable<typeof machine> =>
        machine?.isAlive === true && this.#truth.isMemory(machine.memory),
    );
  }
}
