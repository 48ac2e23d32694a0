/**
 * The link between the two hosts, and connections over it as TCP and WebSockets are: in order, late,
 * never wrong; what cannot travel now waits. A process that ends closes its connections, a host that
 * crashes says nothing, and answers with a reset when it is back.
 */
import type { Life, Side } from "./life.ts";
import type { Random } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";

const LATENCY_MS: readonly [number, number] = [0.05, 3];
const ABNORMAL = 1006;

type Item =
  | { readonly kind: "message"; readonly data: unknown; readonly isBinary: boolean }
  | { readonly kind: "ping" | "pong" | "end" | "reset" }
  | { readonly kind: "close"; readonly code: number };

type Listener = (...values: never[]) => void;

export class Network {
  readonly scheduler: Scheduler;
  readonly random: Random;
  /** A planted bug: whoever asks whether the other side is there gets told so by itself. */
  readonly #isDeafToSilence: boolean;
  /** Directions that carry nothing at the moment, by who would hear. */
  readonly #cut = new Set<Side>();
  readonly #hostsDown = new Set<Side>();
  readonly #waiting = new Set<() => void>();
  readonly #sockets = new Set<SimSocket>();

  constructor(scheduler: Scheduler, random: Random, isDeafToSilence: boolean) {
    this.scheduler = scheduler;
    this.random = random;
    this.#isDeafToSilence = isDeafToSilence;
  }

  get isDeafToSilence(): boolean {
    return this.#isDeafToSilence;
  }

  cut(...hearers: readonly Side[]): void {
    for (const side of hearers) this.#cut.add(side);
  }

  mend(...hearers: readonly Side[]): void {
    for (const side of hearers) this.#cut.delete(side);
    for (const pump of [...this.#waiting]) pump();
  }

  /** The host is gone with all that it had not yet sent. */
  hostDown(side: Side): void {
    this.#hostsDown.add(side);
    for (const socket of this.#sockets) if (socket.life.side === side) socket.forget();
  }

  hostUp(side: Side): void {
    this.#hostsDown.delete(side);
  }

  isCut(hearer: Side): boolean {
    return this.#cut.has(hearer);
  }

  isUp(side: Side): boolean {
    return !this.#hostsDown.has(side);
  }

  /** Connections that somebody still holds; one without a first message has a real timer for that. */
  get openSockets(): number {
    const open = [...this.#sockets].filter(({ readyState }) => readyState !== 3);
    return open.filter(({ hasHeard }) => hasHeard).length;
  }

  get latencyMs(): number {
    return this.random.between(...LATENCY_MS);
  }

  /** Something between the hosts ends every connection. */
  resetAll(): void {
    for (const socket of [...this.#sockets]) socket.fail();
  }

  /** Something between the hosts forgets every connection: nothing comes through, nobody is told. */
  forgetAll(): void {
    for (const socket of this.#sockets) socket.vanish();
  }

  whenMended(pump: () => void): void {
    this.#waiting.add(pump);
  }

  noLongerWaiting(pump: () => void): void {
    this.#waiting.delete(pump);
  }

  /** A connection of two lives that both are there. */
  connect(near: Life, far: Life): { readonly near: SimSocket; readonly far: SimSocket } {
    const here = new SimSocket(this, near);
    const there = new SimSocket(this, far);
    here.join(there);
    there.join(here);
    for (const socket of [here, there]) {
      this.#sockets.add(socket);
      socket.life.onDeath(() => {
        if (this.isUp(socket.life.side)) socket.processEnds();
      });
    }
    return { near: here, far: there };
  }

  forget(socket: SimSocket): void {
    this.#sockets.delete(socket);
  }

  /** Lets go of what real timers of the agents hold. */
  end(): void {
    for (const socket of [...this.#sockets]) socket.emitClose(ABNORMAL);
  }
}

/** What the agents use of a WebSocket of `ws`. */
export class SimSocket {
  readonly OPEN = 1;
  readonly bufferedAmount = 0;
  readonly life: Life;
  readyState = 1;
  readonly #network: Network;
  readonly #listeners = new Map<string, Set<Listener>>();
  readonly #queue: { readonly item: Item; readonly atMs: number }[] = [];
  #peer: SimSocket | null = null;
  #isPumping = false;
  #lastMs = 0;
  #saidClose = false;
  #hasHeard = false;
  #isVanished = false;
  readonly #pump = (): void => {
    this.#deliver();
  };

  constructor(network: Network, life: Life) {
    this.#network = network;
    this.life = life;
  }

  /** A message, not a beat alone. */
  get hasHeard(): boolean {
    return this.#hasHeard;
  }

  join(peer: SimSocket): void {
    this.#peer = peer;
  }

  on(name: string, listener: Listener): this {
    const listeners = this.#listeners.get(name) ?? new Set();
    listeners.add(listener);
    this.#listeners.set(name, listeners);
    return this;
  }

  once(name: string, listener: Listener): this {
    const once = (...values: never[]): void => {
      this.#listeners.get(name)?.delete(once);
      listener(...values);
    };
    return this.on(name, once);
  }

  removeAllListeners(name: string): this {
    this.#listeners.delete(name);
    return this;
  }

  send(data: unknown, options?: { readonly binary: boolean }, sent?: () => void): void {
    if (this.readyState !== 1 || this.life.isDead) return;
    const isBinary = options?.binary ?? typeof data !== "string";
    this.#push({ kind: "message", data, isBinary });
    if (sent !== undefined) this.life.later(0, sent);
  }

  ping(): void {
    if (this.readyState !== 1 || this.life.isDead) return;
    if (this.#network.isDeafToSilence) this.#emit("pong");
    this.#push({ kind: "ping" });
  }

  close(code: number): void {
    if (this.readyState !== 1 || this.life.isDead) return;
    this.readyState = 2;
    this.#saidClose = true;
    this.#push({ kind: "close", code });
  }

  terminate(): void {
    if (this.readyState === 3 || this.life.isDead) return;
    this.#push({ kind: "end" });
    this.#closed(ABNORMAL);
  }

  /** The process is gone: its kernel sends what was written, and then says that this is all. */
  processEnds(): void {
    if (this.readyState !== 3) this.#push({ kind: "end" });
    this.readyState = 3;
  }

  /** The host is gone: nothing is sent any more, and nobody hears. */
  forget(): void {
    this.#queue.length = 0;
    this.readyState = 3;
  }

  /** It ends here without a word from the other side. */
  fail(): void {
    this.#queue.length = 0;
    this.#closed(ABNORMAL);
  }

  /** What is sent from here on gets nowhere. */
  vanish(): void {
    this.#queue.length = 0;
    this.#isVanished = true;
  }

  emitClose(code: number): void {
    this.#emit("close", code);
  }

  #push(item: Item): void {
    if (this.#isVanished) return;
    const { scheduler } = this.#network;
    this.#lastMs = Math.max(this.#lastMs, scheduler.nowMs + this.#network.latencyMs);
    this.#queue.push({ item, atMs: this.#lastMs });
    this.#goOn();
  }

  #goOn(): void {
    const [first] = this.#queue;
    if (this.#isPumping || first === undefined) return;
    this.#isPumping = true;
    const { scheduler } = this.#network;
    const isBeat = first.item.kind === "ping" || first.item.kind === "pong";
    scheduler.after(first.atMs - scheduler.nowMs, this.#pump, isBeat);
  }

  #deliver(): void {
    const network = this.#network;
    const peer = this.#peer;
    network.noLongerWaiting(this.#pump);
    if (peer !== null && network.isCut(peer.life.side)) {
      network.whenMended(this.#pump);
      return;
    }
    this.#isPumping = false;
    const next = this.#queue.shift();
    if (next === undefined || peer === null) return;
    if (network.isUp(peer.life.side)) peer.#received(next.item);
    this.#goOn();
  }

  #received(item: Item): void {
    if (this.life.isDead || this.readyState === 3) {
      // Nobody is there any more; the kernel says so.
      if (item.kind !== "reset" && item.kind !== "end") this.#push({ kind: "reset" });
      return;
    }
    this.life.hear(() => {
      this.#heard(item);
    });
  }

  #heard(item: Item): void {
    if (this.readyState === 3) return;
    switch (item.kind) {
      case "message":
        this.#hasHeard = true;
        this.#emit("message", item.data, item.isBinary);
        return;
      case "ping":
        this.#emit("ping");
        this.#push({ kind: "pong" });
        return;
      case "pong":
        this.#emit("pong");
        return;
      case "close":
        if (!this.#saidClose) this.#push({ kind: "close", code: item.code });
        this.#closed(item.code);
        return;
      case "end":
      case "reset":
        this.#closed(ABNORMAL);
    }
  }

  #closed(code: number): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.life.later(0, () => {
      this.#network.forget(this);
      this.#emit("close", code);
    });
  }

  #emit(name: string, ...values: unknown[]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      (listener as (...values: unknown[]) => void)(...values);
    }
  }
}
