/** What can happen at the dest: its QEMU, its agent, and what the agent hears. No faults but two. */
import { sameStun, type StunRef } from "../stun-ref.ts";
import type { DestEvent, DestOwnership } from "../dest-ownership.ts";
import { Acts } from "./acts.ts";
import { attemptOf, digestOf, versionOf, type Mail } from "./messages.ts";
import { incarnationOf, type Model } from "./model.ts";
import { DAMAGED, DestQemu, Verdict, type Emit, type World } from "./world.ts";

const SAW_DEST = 2;

export class DestSteps {
  readonly #model: Model;
  readonly #acts: Acts;
  readonly #emit: Emit;
  readonly #events;

  constructor(model: Model, emit: Emit) {
    this.#model = model;
    this.#acts = new Acts(model);
    this.#emit = emit;
    const { events } = model.dest;
    this.#events = {
      loaded: [0, 1, 2, DAMAGED].map((version) =>
        events.idOf({ kind: "loaded", digest: digestOf(version) }),
      ),
      failed: events.idOf({ kind: "failed", code: "" }),
      died: events.idOf({ kind: "died" }),
      running: events.idOf({ kind: "running" }),
      whole: events.idOf({ kind: "whole" }),
      contFailed: events.idOf({ kind: "cont-failed" }),
    };
  }

  of(w: World): void {
    if (w.destQemu === DestQemu.RUNNING && w.destUp === 1) {
      if (w.acked < this.#model.rules.writesMax) {
        const after = { ...w, acked: w.acked + 1, destVersion: w.destVersion + 1 };
        this.#emit("dest: the guest writes", after);
      }
    }
    if (w.destUp === 0) this.#restart(w);
    else if (w.destPending !== 0) this.#act(w);
    else this.#ofAgent(w);
  }

  #restart(w: World): void {
    const { state, pending } = this.#model.destRecovered(w);
    const after = { ...w, destUp: 1, dest: state, destPending: pending };
    this.#emit("dest agent restarts", after);
  }

  #act(w: World): void {
    const { label, world, starts } = this.#acts.ofDest(w);
    const mayFail = starts && w.contFailures > 0 && world.destQemu === DestQemu.PAUSED;
    if (mayFail) {
      const after = { ...world, destDue: 1, contFailures: w.contFailures - 1 };
      this.#emit("dest: cont fails", after, true);
    }
    const startable = world.destQemu === DestQemu.PAUSED || world.destQemu === DestQemu.RUNNING;
    if (starts && startable) {
      this.#emit("dest: cont", { ...world, destQemu: DestQemu.RUNNING, destRan: 1 });
    } else this.#emit(label, world);
  }

  #ofAgent(w: World): void {
    const state = this.#model.dest.states.at(w.dest);
    if (w.destDue === 1) this.#take({ ...w, destDue: 0 }, this.#events.contFailed, "cont-failed");
    switch (state.phase) {
      case "loading":
      case "expecting":
        this.#load(w, state.stun);
        this.#giveUp(w, state.stun);
        break;
      case "loaded":
      case "prepared":
        this.#giveUp(w, state.stun);
        break;
      case "taken":
      case "restarting":
      case "down":
        if (w.destQemu !== DestQemu.RUNNING) break;
        this.#take(w, this.#events.running, "running");
        break;
      case "fetching":
        // What is missing comes from a source that has not let go of it.
        if (w.destQemu === DestQemu.RUNNING) this.#take(w, this.#events.whole, "whole");
        break;
      default:
    }
    if (w.destQemu === DestQemu.GONE && state.phase !== "none") {
      this.#take(w, this.#events.died, "QEMU died");
    }
    if ((w.saw & SAW_DEST) !== 0) this.#claimUnread(w, state);
    const { wire } = this.#model;
    for (const mail of wire.due(w, "dest")) {
      if (mail.message.kind === "offer") this.#offered(w, state, mail);
      else this.#hear(wire.delivered(w, mail), state, mail);
    }
  }

  #giveUp(w: World, stun: StunRef): void {
    this.#take(w, this.#events.failed, "failed", this.#model.wire.holds(w, stun));
  }

  /** The stream belongs to the session that asked for it, and is whole or not there. */
  #load(w: World, stun: StunRef): void {
    if (w.destQemu !== DestQemu.INCOMING) return;
    const { wire } = this.#model;
    for (const mail of wire.due(w, "dest-qemu")) {
      if (!sameStun(mail.message.stun, stun)) continue;
      const fed = wire.delivered(w, mail);
      this.#loaded(fed, versionOf(mail.message.digest), false);
      if (w.damages > 0) this.#loaded({ ...fed, damages: w.damages - 1 }, DAMAGED, true);
    }
  }

  #loaded(w: World, destVersion: number, fault: boolean): void {
    const runs = this.#model.rules.destAutostarts;
    const destQemu = runs ? DestQemu.RUNNING : DestQemu.PAUSED;
    const after = { ...w, destVersion, destQemu, destRan: runs ? 1 : w.destRan };
    const event = this.#events.loaded[destVersion]!;
    this.#take(after, event, `loaded ${digestOf(destVersion)}`, fault);
  }

  #hear(w: World, state: DestOwnership, { event, message, label }: Mail): void {
    const { kind, stun } = message;
    const claims = state.phase === "prepared" && kind === "token" && sameStun(stun, state.stun);
    if (claims && this.#model.rules.witness !== "none") this.#claim(w, stun, event);
    else this.#take(w, event, label);
    const current = "stun" in state && state.stun !== null && sameStun(stun, state.stun);
    if (!current) this.#answerOld(w, { kind, stun, event });
    if (kind === "token" && w.destLife === 1 && !current) {
      // The worst that a dest without its memory could say.
      this.#put(w, stun, `dest without its journal: refuse ${label}`);
    }
  }

  /** A session of its own for every migration; an attempt that is still open makes room first. */
  #offered(w: World, state: DestOwnership, mail: Mail): void {
    const { event, label } = mail;
    const { stun } = mail.message;
    const heard = this.#model.wire.delivered(w, mail);
    const known = (w.destKnows & (1 << attemptOf(stun))) !== 0;
    const current = "stun" in state && state.stun?.migrationId === stun.migrationId;
    if (current || (known && this.#model.rules.destKnowsOffers)) {
      this.#reject(heard, label);
      return;
    }
    switch (state.phase) {
      case "none":
      case "refused":
        if (w.destQemu !== DestQemu.GONE) return;
        this.#take(
          { ...heard, dest: 0, destQemu: DestQemu.INCOMING, destVersion: 0 },
          event,
          label,
        );
        return;
      case "loading":
      case "loaded":
      case "expecting":
      case "prepared":
        this.#take(w, this.#events.failed, `gives up for ${label}`);
        return;
      default:
        this.#reject(heard, label);
    }
  }

  #reject(heard: World, label: string): void {
    if (this.#model.rules.wire === "bag") return;
    const after = { ...heard };
    this.#model.wire.hangUp(after);
    this.#emit(`dest: rejects ${label}`, after);
  }

  /** What is older than the current migration was refused, and is answered from the journal. */
  #answerOld(
    w: World,
    { kind, stun, event }: { kind: string; stun: StunRef; event: number },
  ): void {
    if ((kind !== "token" && kind !== "stunned") || w.destLife === 1) return;
    if ((w.destKnows & (1 << attemptOf(stun))) === 0) return;
    const { dest } = this.#model;
    const old = dest.next(dest.states.idOf({ phase: "refused", stun }), event)!;
    if (dest.actions(old.pending).length > 0) this.#put(w, stun, "dest: refuses an old migration");
  }

  #put(w: World, stun: StunRef, label: string): void {
    const after = { ...w };
    const incarnation = incarnationOf(w);
    this.#model.wire.put(after, { kind: "refused", stun, digest: "", incarnation });
    this.#emit(label, after);
  }

  /** With a witness the dest must have won before it takes. */
  #claim(w: World, stun: StunRef, token: number): void {
    const verdict = (w.witness >> (2 * attemptOf(stun))) & 3;
    if (verdict === Verdict.REVOKED) this.#take(w, this.#events.failed, "finds REVOKED");
    else if (this.#model.rules.witness === "read-then-write") {
      this.#emit("dest: reads the witness", { ...w, saw: w.saw | SAW_DEST });
    } else this.#take(this.#claimed(w, stun), token, "claims, TOKEN");
  }

  /** The planted bug: it trusts what it has read before. */
  #claimUnread(w: World, state: DestOwnership): void {
    const after = { ...w, saw: w.saw & ~SAW_DEST };
    if (state.phase !== "prepared") return;
    const event: DestEvent = { kind: "token", stun: state.stun };
    this.#take(
      this.#claimed(after, state.stun),
      this.#model.dest.events.idOf(event),
      "writes TAKEN",
    );
  }

  #claimed(w: World, stun: StunRef): World {
    const shift = 2 * attemptOf(stun);
    return { ...w, witness: (w.witness & ~(3 << shift)) | (Verdict.TAKEN << shift) };
  }

  #take(w: World, event: number, label: string, fault = false): void {
    const { dest, rules } = this.#model;
    const outcome = dest.next(w.dest, event);
    if (outcome === null) {
      this.#refused(w, event, label);
      return;
    }
    const { state, pending } = outcome;
    const same = state === w.dest && event !== this.#events.contFailed && rules.wire === "bag";
    if (same && this.#acts.repeats(w, dest.actions(pending))) return;
    this.#emit(`dest: ${label}`, { ...w, dest: state, destPending: pending }, fault);
  }

  /** A session logs it and goes on. */
  #refused(w: World, event: number, label: string): void {
    if (this.#model.rules.wire === "bag") return;
    const { states, events } = this.#model.dest;
    this.#model.illegal.add(`dest ${states.at(w.dest).phase} + ${events.at(event).kind}`);
    this.#emit(`dest: ${label}, illegal`, w);
  }
}
