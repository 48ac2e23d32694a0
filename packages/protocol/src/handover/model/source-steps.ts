/** What can happen at the source: its QEMU, its agent, and what the agent hears. No faults. */
import { mayRollBack, type SourceOwnership } from "../source-ownership.ts";
import type { StunRef } from "../stun-ref.ts";
import { Acts } from "./acts.ts";
import { attemptOf, digestOf } from "./messages.ts";
import type { Model } from "./model.ts";
import { SourceQemu, Verdict, type Emit, type World } from "./world.ts";

const SAW_SOURCE = 1;

export class SourceSteps {
  readonly #model: Model;
  readonly #acts: Acts;
  readonly #emit: Emit;
  readonly #events;

  constructor(model: Model, emit: Emit) {
    this.#model = model;
    this.#acts = new Acts(model);
    this.#emit = emit;
    const { events } = model.source;
    this.#events = {
      stunned: events.idOf({ kind: "stunned" }),
      postmigrate: events.idOf({ kind: "postmigrate" }),
      failed: events.idOf({ kind: "failed" }),
      resumed: events.idOf({ kind: "resumed" }),
      word: events.idOf({ kind: "settled", owner: "dest", follows: true }),
      begin: ["m1", "m2", "m3"].map((migrationId) => events.idOf({ kind: "begin", migrationId })),
      sent: [0, 1, 2].map((version) => events.idOf({ kind: "sent", digest: digestOf(version) })),
    };
  }

  of(w: World): void {
    this.#ofQemu(w);
    if (w.sourceUp === 0) this.#restart(w);
    else if (w.sourcePending !== 0) {
      const { label, world } = this.#acts.ofSource(w);
      this.#emit(label, world);
    } else this.#ofAgent(w);
  }

  #ofQemu(w: World): void {
    const { sourceQemu } = w;
    if (sourceQemu === SourceQemu.RUNNING && w.sourceUp === 1) {
      // An agent that is down stalls the guest's disks.
      if (w.acked < this.#model.rules.writesMax) {
        const acked = w.acked + 1;
        const after = { ...w, acked, sourceVersion: w.sourceVersion + 1 };
        this.#emit("source: the guest writes", after);
      }
    }
    const attached = this.#attached(w);
    // QEMU is told to migrate when BEGIN is durable.
    const migrates = attached?.phase === "transfer" && w.sourcePending === 0;
    if (sourceQemu === SourceQemu.RUNNING && migrates) {
      const after = { ...w, sourceQemu: SourceQemu.SWITCHOVER };
      this.#emit("source QEMU stops at the switch-over", after);
    }
    if (sourceQemu === SourceQemu.SHUT) {
      const after = { ...w, sourceQemu: SourceQemu.POSTMIGRATE };
      this.#emit("source QEMU says postmigrate", after);
    }
    const openEnded = sourceQemu === SourceQemu.FINISHING || sourceQemu === SourceQemu.SHUT;
    if (openEnded && attached === null) {
      const after = { ...w, sourceQemu: SourceQemu.RUNNING };
      this.#emit("source QEMU sees its socket closed and goes on", after);
    }
  }

  /** The attempt in which the agent holds the migration socket open. */
  #attached(w: World): SourceOwnership | null {
    if (w.sourceUp === 0 || w.source === 0) return null;
    const state = this.#model.source.states.at(w.source);
    return mayRollBack(state) ? state : null;
  }

  #restart(w: World): void {
    const { state, pending } = this.#model.sourceRecovered(w);
    const after = { ...w, sourceUp: 1, source: state, sourcePending: pending };
    this.#emit("source agent restarts", after);
  }

  #ofAgent(w: World): void {
    const state = this.#model.source.states.at(w.source);
    if (w.sourceDue === 1) this.#take({ ...w, sourceDue: 0 }, this.#events.resumed, "resumed");
    switch (state.phase) {
      case "owner":
        if (w.sourceQemu === SourceQemu.RUNNING && w.attempts < this.#model.rules.attemptsMax) {
          const after = { ...w, attempts: w.attempts + 1 };
          this.#take(after, this.#events.begin[w.attempts]!, "begin");
        }
        break;
      case "transfer":
        if (w.sourceQemu === SourceQemu.SWITCHOVER) this.#take(w, this.#events.stunned, "stunned");
        break;
      case "stunned":
        this.#finish(w, state);
        break;
      case "shutting":
        if (w.sourceQemu !== SourceQemu.POSTMIGRATE) break;
        this.#take(w, this.#events.postmigrate, "postmigrate");
        break;
      case "handed-off":
        this.#ofWitness(w, state);
        break;
      default:
    }
    if (mayRollBack(state) && "stun" in state && state.stun !== null) {
      const noReason = w.sourceQemu !== SourceQemu.GONE && this.#model.wire.holds(w, state.stun);
      this.#take(w, this.#events.failed, "failed", noReason);
    }
    if (state.phase === "handed-off" || state.phase === "released") this.#askAgain(w, state.stun);
    if (w.sourceWords > 0 && mayBeSettled(state)) {
      const after = { ...w, sourceWords: w.sourceWords - 1 };
      this.#take(after, this.#events.word, "a person says that it is the dest's", true);
    }
    for (const mail of this.#model.wire.due(w, "source")) {
      this.#take(this.#model.wire.delivered(w, mail), mail.event, mail.label);
    }
  }

  #askAgain(w: World, stun: StunRef): void {
    const { wire } = this.#model;
    if (wire.holds(w, stun)) return;
    const after = { ...w };
    wire.open(after);
    this.#take(after, this.#events.failed, "failed");
  }

  #finish(w: World, { stun }: SourceOwnership & { phase: "stunned" }): void {
    if (w.sourceQemu === SourceQemu.SWITCHOVER) {
      this.#emit("source QEMU is told to go on", { ...w, sourceQemu: SourceQemu.FINISHING });
    }
    if (w.sourceQemu !== SourceQemu.FINISHING) return;
    const after = { ...w };
    const digest = digestOf(w.sourceVersion);
    this.#model.wire.put(after, { kind: "stream", stun, digest, incarnation: "" });
    this.#model.wire.put(after, { kind: "stunned", stun, digest, incarnation: "" });
    this.#take(after, this.#events.sent[w.sourceVersion]!, "sent");
  }

  /** A source that may have to wait for long asks for the last word. */
  #ofWitness(w: World, { stun }: SourceOwnership & { phase: "handed-off" }): void {
    const { witness } = this.#model.rules;
    if (witness === "none") return;
    const shift = 2 * attemptOf(stun);
    const verdict = (w.witness >> shift) & 3;
    const event = this.#model.source.events.idOf({ kind: "revoked", stun });
    const revoked = (w.witness & ~(3 << shift)) | (Verdict.REVOKED << shift);
    const after = { ...w, saw: w.saw & ~SAW_SOURCE, witness: revoked };
    if (witness === "read-then-write") {
      if ((w.saw & SAW_SOURCE) !== 0) this.#take(after, event, "writes REVOKED");
      else if (verdict !== Verdict.TAKEN) {
        this.#emit("source: reads the witness", { ...w, saw: w.saw | SAW_SOURCE });
      }
    } else if (verdict !== Verdict.TAKEN) this.#take(after, event, "revoked");
  }

  #take(w: World, event: number, label: string, fault = false): void {
    const { source, rules } = this.#model;
    const outcome = source.next(w.source, event);
    if (outcome === null) {
      this.#refused(w, event, label);
      return;
    }
    const { state, pending } = outcome;
    const same = state === w.source && event !== this.#events.resumed && rules.wire === "bag";
    if (same && this.#acts.repeats(w, source.actions(pending))) return;
    this.#emit(`source: ${label}`, { ...w, source: state, sourcePending: pending }, fault);
  }

  /** A session logs it and goes on. */
  #refused(w: World, event: number, label: string): void {
    if (this.#model.rules.wire === "bag") return;
    const { states, events } = this.#model.source;
    this.#model.illegal.add(`source ${states.at(w.source).phase} + ${events.at(event).kind}`);
    this.#emit(`source: ${label}, illegal`, w);
  }
}

function mayBeSettled({ phase }: SourceOwnership): boolean {
  return phase === "handed-off" || phase === "released" || phase === "unclear";
}
