/** What the actions of the machines do to a world. Each is a step of its own: a crash may follow. */
import { unreachable } from "@vmferry/core";
import type { DestAction } from "../dest-ownership.ts";
import type { SourceAction } from "../source-ownership.ts";
import type { StunRef } from "../stun-ref.ts";
import { attemptOf, type Message } from "./messages.ts";
import { incarnationOf, type Model } from "./model.ts";
import { DestQemu, SourceQemu, type World } from "./world.ts";

export class Acts {
  readonly #model: Model;

  constructor(model: Model) {
    this.#model = model;
  }

  /** Carries out the first action that waits. */
  ofSource(world: World): { readonly label: string; readonly world: World } {
    const { source } = this.#model;
    const action = source.actions(world.sourcePending)[0]!;
    const after = { ...world, sourcePending: source.rest(world.sourcePending) };
    this.#actSource(action, after);
    return { label: `source: ${nameOf(action)}`, world: after };
  }

  /** Likewise; `starts` means that it is for the caller to say what becomes of the `cont`. */
  ofDest(world: World): {
    readonly label: string;
    readonly world: World;
    readonly starts: boolean;
  } {
    const { dest } = this.#model;
    const action = dest.actions(world.destPending)[0]!;
    const after = { ...world, destPending: dest.rest(world.destPending) };
    this.#actDest(action, after);
    return { label: `dest: ${nameOf(action)}`, world: after, starts: action.do === "start-guest" };
  }

  /** Only says again what can be heard anyway. */
  repeats(world: World, actions: readonly (SourceAction | DestAction)[]): boolean {
    return actions.every((action) => {
      const message = messageOf(action, world);
      return message !== null && this.#model.wire.has(world, message);
    });
  }

  #actSource(action: SourceAction, world: World): void {
    switch (action.do) {
      case "record":
        world.sourceJournal = this.#model.numberSourceRecord(action);
        if (action.record === "begin") this.#offer(action.stun, world);
        return;
      case "send-token":
      case "send-abort":
        this.#model.wire.put(world, messageOf(action, world)!);
        return;
      case "forward-shut":
        if (world.sourceQemu === SourceQemu.FINISHING) world.sourceQemu = SourceQemu.SHUT;
        return;
      case "roll-back":
        if (world.sourceQemu !== SourceQemu.GONE) world.sourceQemu = SourceQemu.RUNNING;
        world.sourceDue = 1;
        return;
      case "resume-guest":
        if (world.sourceQemu === SourceQemu.POSTMIGRATE) world.sourceQemu = SourceQemu.RUNNING;
        world.sourceDue = 1;
        return;
      case "halt-guest":
        if (world.sourceQemu === SourceQemu.RUNNING) world.sourceQemu = SourceQemu.POSTMIGRATE;
        return;
      case "quit-guest":
        world.sourceQemu = SourceQemu.GONE;
        return;
      default:
        unreachable(action);
    }
  }

  /** The session's first words, once BEGIN is durable. */
  #offer(stun: StunRef, world: World): void {
    const { wire } = this.#model;
    wire.open(world);
    wire.put(world, { kind: "offer", stun, digest: "", incarnation: "" });
  }

  #actDest(action: DestAction, world: World): void {
    switch (action.do) {
      case "record":
        world.destJournal = this.#model.numberDestRecord(action);
        world.destKnows |= 1 << attemptOf(action.stun);
        return;
      case "send-prepared":
      case "send-taken":
      case "send-complete":
      case "send-refused":
        this.#model.wire.put(world, messageOf(action, world)!);
        return;
      case "send-running":
      case "start-guest":
      case "fetch":
        return;
      case "kill-guest":
        world.destQemu = DestQemu.GONE;
        world.destVersion = 0;
        return;
      default:
        unreachable(action);
    }
  }
}

const KINDS = {
  "send-token": "token",
  "send-abort": "abort",
  "send-prepared": "prepared",
  "send-taken": "taken",
  "send-complete": "complete",
  "send-refused": "refused",
} as const;

/** Null where the action sends nothing. */
function messageOf(action: SourceAction | DestAction, world: World): Message | null {
  switch (action.do) {
    case "send-token":
    case "send-abort":
      return { kind: KINDS[action.do], stun: action.stun, digest: "", incarnation: "" };
    case "send-prepared":
    case "send-taken":
    case "send-complete":
    case "send-refused": {
      const digest = action.do === "send-prepared" ? action.digest : "";
      const incarnation = incarnationOf(world);
      return { kind: KINDS[action.do], stun: action.stun, digest, incarnation };
    }
    default:
      return null;
  }
}

function nameOf(action: SourceAction | DestAction): string {
  return action.do === "record" ? `record ${action.record}` : action.do;
}
