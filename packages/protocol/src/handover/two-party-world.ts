/**
 * Both ownership machines with everything around them that matters to who runs the guest: two
 * QEMUs, a wire, and faults. `stepsOf` lists what can happen next in a world. Nothing here decides
 * anything about ownership: that is the machines' part, which are given.
 *
 * Two kinds of wire:
 *   bag    keeps every message for ever: each may come late, again, out of order, or never
 *   link   a queue each way, cut now and then; what was on it is lost, as over a WebSocket
 */
import { mayRollBack, type SourceOwnership, type SourceStep } from "./source-ownership.ts";
import type { SourceEvent } from "./source-ownership.ts";
import type { DestEvent, DestOwnership, DestStep } from "./dest-ownership.ts";
import { OwnershipError } from "./ownership-error.ts";
import type { StunRef } from "./stun-ref.ts";

export interface Machines {
  readonly source: (state: SourceOwnership, event: SourceEvent) => SourceStep;
  readonly dest: (state: DestOwnership, event: DestEvent) => DestStep;
}

export interface Rules {
  readonly machines: Machines;
  readonly wire: "bag" | "link";
  readonly attemptsMax: number;
}

export interface Message {
  readonly to: "source" | "dest";
  readonly kind:
    "offer" | "stunned" | "token" | "abort" | "prepared" | "taken" | "complete" | "refused";
  readonly stun: StunRef;
  readonly incarnation: string;
  readonly digest: string;
}

/** The dest of one migration, and its QEMU. */
export interface DestSide {
  readonly state: DestOwnership;
  /** Its QEMU may be executing: from `cont` until it is known not to have run, or killed. */
  readonly mayRun: boolean;
  /** `cont` is under way. */
  readonly starting: boolean;
  /** The guest has executed instructions here. */
  readonly ran: boolean;
  /** What its QEMU has loaded. */
  readonly loaded: string | null;
}

export interface World {
  readonly source: SourceOwnership;
  /** Its QEMU may be executing, or may begin to by itself: it does, until `postmigrate`. */
  readonly sourceMayRun: boolean;
  readonly resuming: boolean;
  readonly dests: readonly DestSide[];
  readonly linkUp: boolean;
  readonly wire: readonly Message[];
}

export interface Step {
  readonly label: string;
  /** Needs a fault: without any more of them it does not happen. */
  readonly fault: boolean;
  readonly world: World;
  /** The machine had no answer to the event; the world is as before. */
  readonly illegal: string | null;
}

export const FIRST_WORLD: World = {
  source: { phase: "owner", epoch: 1 },
  sourceMayRun: true,
  resuming: false,
  dests: [],
  linkUp: true,
  wire: [],
};

/** The dest's agent and another one that has lost its memory of what it did. */
const INCARNATION = "d1";
const AMNESIAC = "d2";
export const SENT_DIGEST = "sent";

export function stepsOf(world: World, rules: Rules): Step[] {
  const next = new NextSteps(world, rules);
  next.ofSource();
  for (let i = 0; i < world.dests.length; i++) next.ofDest(i);
  if (rules.wire === "bag") next.ofBag();
  else next.ofLink();
  return next.steps;
}

class NextSteps {
  readonly steps: Step[] = [];
  readonly #world: World;
  readonly #rules: Rules;

  constructor(world: World, rules: Rules) {
    this.#world = world;
    this.#rules = rules;
  }

  ofSource(): void {
    const { source, dests, resuming, linkUp } = this.#world;
    if (source.phase === "owner" && dests.length < this.#rules.attemptsMax) this.#begin();
    if (source.phase === "transfer") this.#source({ kind: "stunned" });
    if (source.phase === "stunned") this.#source({ kind: "sent", digest: SENT_DIGEST });
    if (source.phase === "shutting") this.#source({ kind: "postmigrate" });
    if (mayRollBack(source)) this.#source({ kind: "failed" }, linkUp);
    if (resuming) this.#source({ kind: "resumed" });
    const asks = source.phase === "handed-off" || source.phase === "released";
    if (asks && this.#rules.wire === "bag") this.#source({ kind: "failed" });
    if (asks && !linkUp) this.#source({ kind: "failed" }, false, { ...this.#world, linkUp: true });
  }

  ofDest(index: number): void {
    const { state, starting } = this.#world.dests[index]!;
    if (state.phase === "loading" || state.phase === "expecting") {
      this.#dest(index, { kind: "loaded", digest: SENT_DIGEST });
      this.#dest(index, { kind: "loaded", digest: "damaged" }, true);
    }
    const waits = state.phase !== "none" && state.phase !== "refused" && state.phase !== "owner";
    const linkUp = this.#world.linkUp && index === this.#world.dests.length - 1;
    if (waits) this.#dest(index, { kind: "failed", code: "peer-lost" }, linkUp);
    if (!starting) return;
    this.#dest(index, { kind: "running" });
    this.#dest(index, { kind: "cont-failed" }, true);
  }

  /** Any message that was ever sent, to whichever dest, and what an amnesiac would say. */
  ofBag(): void {
    const { source, dests, wire } = this.#world;
    for (const message of wire) {
      if (message.to === "source") this.#deliverToSource(message);
      else for (let i = 0; i < dests.length; i++) this.#deliverToDest(i, message);
    }
    if (!("stun" in source)) return;
    for (const kind of ["taken", "refused", "complete"] as const) {
      this.#source({ kind, stun: source.stun, incarnation: AMNESIAC });
    }
  }

  /** The oldest message in each direction; or the link is cut. */
  ofLink(): void {
    const { wire, linkUp, dests } = this.#world;
    if (!linkUp) return;
    this.#push("the link is cut", true, { ...this.#world, linkUp: false, wire: [] });
    for (const to of ["source", "dest"] as const) {
      const message = wire.find((each) => each.to === to);
      if (message === undefined) continue;
      const rest = { ...this.#world, wire: wire.filter((each) => each !== message) };
      if (to === "source") this.#deliverToSource(message, rest);
      else this.#deliverToDest(dests.length - 1, message, rest);
    }
  }

  #begin(): void {
    const before = this.#world;
    const migrationId = `m${before.dests.length + 1}`;
    const state: DestOwnership = { phase: "none" };
    const dest = { state, mayRun: false, starting: false, ran: false, loaded: null };
    // Every session has a link of its own.
    const wire = this.#rules.wire === "link" ? [] : before.wire;
    const dests = [...before.dests, dest];
    this.#source({ kind: "begin", migrationId }, false, { ...before, dests, wire, linkUp: true });
  }

  #deliverToSource(message: Message, from = this.#world): void {
    const { kind, stun, incarnation, digest } = message;
    if (kind === "prepared") this.#source({ kind, stun, incarnation, digest }, false, from);
    if (kind === "taken" || kind === "complete" || kind === "refused") {
      this.#source({ kind, stun, incarnation }, false, from);
    }
  }

  #deliverToDest(index: number, message: Message, from = this.#world): void {
    const { kind, stun, digest } = message;
    if (kind === "stunned") this.#dest(index, { kind, stun, digest }, false, from);
    if (kind === "token" || kind === "abort") this.#dest(index, { kind, stun }, false, from);
    // The session of a migration is made by its own offer.
    const fresh = from.dests[index]!.state.phase === "none" && stun.migrationId === `m${index + 1}`;
    if (kind === "offer" && fresh) this.#dest(index, { kind, stun }, false, from);
  }

  #source(event: SourceEvent, fault = false, from = this.#world): void {
    const label = `source ${from.source.phase} + ${event.kind}`;
    const step = legally(() => this.#rules.machines.source(from.source, event));
    if (step === null) {
      this.#push(label, fault, from, label);
      return;
    }
    let world: World = { ...from, source: step.state };
    if (event.kind === "postmigrate") world = { ...world, sourceMayRun: false };
    if (event.kind === "resumed") world = { ...world, resuming: false };
    if (event.kind === "begin" && "stun" in step.state) {
      world = this.#sent(world, { to: "dest", kind: "offer", stun: step.state.stun });
    }
    if (event.kind === "sent" && "stun" in step.state) {
      const { stun } = step.state;
      world = this.#sent(world, { to: "dest", kind: "stunned", stun, digest: event.digest });
    }
    for (const action of step.actions) {
      if (action.do === "roll-back" || action.do === "resume-guest") {
        world = { ...world, sourceMayRun: true, resuming: true };
      }
      if (action.do === "quit-guest") world = { ...world, sourceMayRun: false };
      if (action.do === "send-token" || action.do === "send-abort") {
        const kind = action.do === "send-token" ? "token" : "abort";
        world = this.#sent(world, { to: "dest", kind, stun: action.stun });
      }
    }
    this.#push(label, fault, world);
  }

  #dest(index: number, event: DestEvent, fault = false, from = this.#world): void {
    const side = from.dests[index]!;
    const label = `dest ${side.state.phase} + ${event.kind}`;
    const step = legally(() => this.#rules.machines.dest(side.state, event));
    if (step === null) {
      this.#push(label, fault, from, label);
      return;
    }
    let after: DestSide = { ...side, state: step.state };
    if (event.kind === "loaded") after = { ...after, loaded: event.digest };
    if (event.kind === "running") after = { ...after, starting: false, ran: true };
    if (event.kind === "cont-failed") after = { ...after, starting: false, mayRun: false };
    let world = from;
    for (const action of step.actions) {
      if (action.do === "start-guest") after = { ...after, starting: true, mayRun: true };
      if (action.do === "kill-guest") after = { ...after, starting: false, mayRun: false };
      const kind = answers.get(action.do);
      if (kind === undefined || !("stun" in action)) continue;
      const digest = action.do === "send-prepared" ? action.digest : "";
      // An old session's link is gone.
      const heard = this.#rules.wire === "bag" || index === from.dests.length - 1;
      if (heard) world = this.#sent(world, { to: "source", kind, stun: action.stun, digest });
    }
    const dests = world.dests.with(index, after);
    this.#push(`${label} (m${index + 1})`, fault, { ...world, dests });
  }

  #sent(world: World, sent: Omit<Message, "incarnation" | "digest"> & { digest?: string }): World {
    const message = { digest: "", incarnation: INCARNATION, ...sent };
    if (!world.linkUp) return world;
    if (this.#rules.wire === "link") return { ...world, wire: [...world.wire, message] };
    const known = world.wire.map((each) => JSON.stringify(each));
    const key = JSON.stringify(message);
    if (known.includes(key)) return world;
    // In one order, whatever order they were sent in: the bag has none.
    const at = known.findIndex((each) => each > key);
    return { ...world, wire: world.wire.toSpliced(at < 0 ? known.length : at, 0, message) };
  }

  #push(label: string, fault: boolean, world: World, illegal: string | null = null): void {
    this.steps.push({ label, fault, world, illegal });
  }
}

const answers: ReadonlyMap<string, Message["kind"]> = new Map([
  ["send-prepared", "prepared"],
  ["send-taken", "taken"],
  ["send-complete", "complete"],
  ["send-refused", "refused"],
]);

/** What the sessions do with an event that the machine refuses: they log it and go on. */
function legally<T>(step: () => T): T | null {
  try {
    return step();
  } catch (error) {
    if (error instanceof OwnershipError) return null;
    throw error;
  }
}
