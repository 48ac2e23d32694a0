/**
 * What one agent says to the other, in two ways that it may fare:
 *
 *   bag    keeps every message for ever: each may come late, again, out of order, or never
 *   link   a queue each way, cut now and then; what was on it is lost, as over a WebSocket
 */
import { assert } from "@vmferry/core";
import type { StunRef } from "../stun-ref.ts";
import { attemptOf, type Mail, type Message, type Messages } from "./messages.ts";
import type { World } from "./world.ts";

export interface Wire {
  /** Into a world of the caller's own making. */
  put(world: World, message: Message): void;
  /** It can be heard anyway. */
  has(world: World, message: Message): boolean;
  /** What can be delivered next. */
  due(world: World, to: Mail["to"]): readonly Mail[];
  delivered(world: World, mail: Mail): World;
  /** This migration is not known to be cut off: giving it up takes a fault. */
  holds(world: World, stun: StunRef): boolean;
  /** Into a world of the caller's own making: the source begins, or comes back. */
  open(world: World): void;
  /** Likewise: an agent is gone, and its end of every connection with it. */
  hangUp(world: World): void;
  /** Null where nothing is left to lose. */
  lost(world: World): World | null;
  /** Likewise into a world of one's own: what a session without its memory is not fed. */
  dropStreams(world: World): void;
}

export class Bag implements Wire {
  readonly #messages: Messages;

  constructor(messages: Messages) {
    this.#messages = messages;
  }

  put(world: World, message: Message): void {
    const bit = this.#messages.idOf(message);
    if (bit < 32) world.wire0 |= 1 << bit;
    else world.wire1 |= 1 << (bit & 31);
  }

  has(world: World, message: Message): boolean {
    return holdsBit(world, this.#messages.idOf(message));
  }

  due(world: World, to: Mail["to"]): readonly Mail[] {
    return this.#messages.all(to).filter(({ id }) => holdsBit(world, id));
  }

  delivered(world: World): World {
    return world;
  }

  /** A time-out may come at any time, and proves nothing. */
  holds(): boolean {
    return false;
  }

  open(): void {
    // It is always there.
  }

  hangUp(): void {
    // What was sent stays on its way.
  }

  lost(world: World): World | null {
    if (world.links === 0 || (world.wire0 === 0 && world.wire1 === 0)) return null;
    return { ...world, links: world.links - 1, wire0: 0, wire1: 0 };
  }

  dropStreams(world: World): void {
    for (const { id } of this.#messages.all("dest-qemu")) {
      if (id < 32) world.wire0 &= ~(1 << id);
      else world.wire1 &= ~(1 << (id & 31));
    }
  }
}

const SLOT_BITS = 6;
const SLOT_MASK = 63;
const SLOTS = 5;

/** A queue is a number of five slots, the oldest message lowest; 0 is an empty slot. */
export class Link implements Wire {
  readonly #messages: Messages;

  constructor(messages: Messages) {
    this.#messages = messages;
  }

  put(world: World, message: Message): void {
    // An older session has a link of its own, which is gone.
    if (!this.holds(world, message.stun)) return;
    const slot = this.#messages.idOf(message) + 1;
    assert(slot <= SLOT_MASK, "a message has room in a slot");
    switch (this.#messages.at(slot - 1).to) {
      case "source":
        world.wire1 = queued(world.wire1, slot);
        return;
      case "dest":
        world.wire0 = queued(world.wire0, slot);
        return;
      case "dest-qemu":
        world.bulk = slot;
    }
  }

  has(): boolean {
    return false;
  }

  due(world: World, to: Mail["to"]): readonly Mail[] {
    const slot = headOf(world, to);
    return slot === 0 ? [] : [this.#messages.at(slot - 1)];
  }

  delivered(world: World, { to }: Mail): World {
    switch (to) {
      case "source":
        return { ...world, wire1: world.wire1 >>> SLOT_BITS };
      case "dest":
        return { ...world, wire0: world.wire0 >>> SLOT_BITS };
      case "dest-qemu":
        return { ...world, bulk: 0 };
    }
  }

  holds(world: World, stun: StunRef): boolean {
    return world.linkUp === 1 && attemptOf(stun) === world.attempts - 1;
  }

  open(world: World): void {
    this.hangUp(world);
    world.linkUp = 1;
  }

  hangUp(world: World): void {
    world.linkUp = 0;
    world.wire0 = 0;
    world.wire1 = 0;
    world.bulk = 0;
  }

  lost(world: World): World | null {
    if (world.linkUp === 0) return null;
    const after = { ...world };
    this.hangUp(after);
    return after;
  }

  dropStreams(world: World): void {
    world.bulk = 0;
  }
}

function holdsBit({ wire0, wire1 }: World, bit: number): boolean {
  return ((bit < 32 ? wire0 : wire1) & (1 << (bit & 31))) !== 0;
}

function headOf({ wire0, wire1, bulk }: World, to: Mail["to"]): number {
  switch (to) {
    case "source":
      return wire1 & SLOT_MASK;
    case "dest":
      return wire0 & SLOT_MASK;
    case "dest-qemu":
      return bulk;
  }
}

function queued(queue: number, slot: number): number {
  for (let at = 0; at < SLOTS; at++) {
    if (((queue >>> (at * SLOT_BITS)) & SLOT_MASK) === 0) return queue | (slot << (at * SLOT_BITS));
  }
  assert(false, "a queue has room for all that can be on its way");
}
