/**
 * One seed, from the start of a guest to the end of everything that was drawn for it: both agents
 * with their production sessions, in a world in which all time and all chance are the seed's.
 */
import { DestHost } from "./dest-host.ts";
import { Faults, type Fault } from "./faults.ts";
import { Network } from "./network.ts";
import { Oracle } from "./oracle.ts";
import { Random } from "./random.ts";
import { drained, Scheduler } from "./scheduler.ts";
import type { PlantedBug, Setting } from "./setting.ts";
import { Share } from "./share.ts";
import { SourceHost } from "./source-host.ts";
import { Trace } from "./trace.ts";
import { Truth } from "./truth.ts";
import { DOWN, endOf, needsPerson, type End } from "./end.ts";

export interface SimulateOptions {
  readonly keepsTrace?: boolean;
  readonly bug?: PlantedBug;
}

export interface Simulated {
  readonly seed: number;
  readonly traceHash: string;
  /** The promise that was broken. */
  readonly violation: string | null;
  /** What happened, line by line; empty where it was not kept. */
  readonly trace: readonly string[];
  readonly steps: number;
  readonly outcome: End | "violation";
  readonly faults: readonly Fault[];
  readonly virtualMs: number;
}

const FAULTS_MS_MAX = 150_000;
/** Longer than every wait of the agents: one minute of the prepared dest, half of one for ABORT. */
const QUIET_MS_MAX = 260_000;
const LOOK_MS = 500;
const STEPS_MAX = 200_000;
/** After the end, until nothing of it may be left. */
const REST_MS = 100_000;

export async function simulate(seed: number, options: SimulateOptions = {}): Promise<Simulated> {
  const world = new World(seed, options);
  const rejections: unknown[] = [];
  const onRejection = (reason: unknown): void => {
    rejections.push(reason);
  };
  process.on("unhandledRejection", onRejection);
  try {
    const outcome = await world.run();
    // Rejections that nobody handles are told of between two turns of the event loop.
    await turnOfLoop();
    for (const reason of rejections)
      world.oracle.broken(`an unhandled rejection: ${String(reason)}`);
    return world.result(outcome);
  } finally {
    process.off("unhandledRejection", onRejection);
  }
}

class World {
  readonly oracle: Oracle;
  readonly #seed: number;
  readonly #scheduler: Scheduler;
  readonly #trace: Trace;
  readonly #network: Network;
  readonly #source: SourceHost;
  readonly #dest: DestHost;
  readonly #faults: Faults;
  readonly #random: Random;
  readonly #truth: Truth;
  readonly #attempts: (number | null)[];
  #steps = 0;
  #quietMs: number | null = null;
  #nextAttemptMs: number;

  constructor(seed: number, { keepsTrace = false, bug = {} }: SimulateOptions) {
    const random = new Random(seed);
    this.#seed = seed;
    this.#random = random;
    this.#scheduler = new Scheduler(random);
    this.#trace = new Trace(() => this.#scheduler.nowMs, keepsTrace);
    this.#network = new Network(this.#scheduler, random, bug.deafToSilence === true);
    const truth = new Truth();
    this.#truth = truth;
    this.oracle = new Oracle(truth);
    const setting: Setting = {
      ...{ random, truth, bug, scheduler: this.#scheduler, trace: this.#trace },
      network: this.#network,
      share: random.chance(0.4) ? new Share(this.#scheduler, random) : null,
      onPort: (_life, name) => {
        this.#trace.comment(`  . ${name}`);
        this.#faults.onPort();
      },
      onRun: (machine) => {
        this.oracle.runs(machine);
      },
      onEnd: () => {
        this.oracle.ended();
      },
      onDurable: (record) => {
        this.#faults.onRecord(record);
        this.oracle.recorded();
      },
      onFault: (what) => {
        this.oracle.broken(`an agent's own bug: ${what}`);
      },
    };
    this.#dest = new DestHost(setting, "dest");
    this.#source = new SourceHost(setting, this.#dest);
    this.#faults = new Faults(
      { setting, source: this.#source, dest: this.#dest, oracle: this.oracle },
      random,
    );
    const count = random.pick([1, 1, 2, 3]);
    const limits = [null, null, null, random.spread(100, 10_000)];
    this.#attempts = Array.from({ length: count }, () => random.pick(limits));
    this.#nextAttemptMs = random.spread(10, 1000);
  }

  async run(): Promise<End | "violation"> {
    this.#source.startGuest();
    this.oracle.watch(this.#source, this.#dest);
    this.#dest.boot();
    this.#source.boot();
    this.#look();
    let end: End | null = null;
    while (end === null && this.oracle.violation === null) {
      const due = await this.#scheduler.step();
      if (due === null) break;
      this.#steps += 1;
      this.#trace.tick();
      if (!due.isBeat) this.#faults.onStep();
      if (this.#steps > STEPS_MAX) this.oracle.broken("nothing comes to rest: too many steps");
      end = this.#end();
    }
    if (end !== null && this.oracle.violation === null) await this.#rest(end);
    this.#network.end();
    await drained();
    return this.oracle.violation === null ? (end ?? "nothing is left to do") : "violation";
  }

  result(outcome: End | "violation"): Simulated {
    const promise = this.oracle.violation;
    return {
      seed: this.#seed,
      traceHash: this.#trace.hash,
      violation: promise,
      trace: this.#trace.lines ?? [],
      steps: this.#steps,
      outcome: promise === null ? outcome : "violation",
      faults: this.#faults.planned,
      virtualMs: this.#scheduler.nowMs,
    };
  }

  /** What has come to an end stays so, and nothing waits for anything. */
  async #rest(end: End): Promise<void> {
    const untilMs = this.#scheduler.nowMs + REST_MS;
    this.#truth.isAsleep = true;
    this.#faults.end();
    const needsPerson = end.startsWith("a person");
    if (needsPerson) this.#settle();
    while (this.#scheduler.nowMs < untilMs && this.oracle.violation === null) {
      if ((await this.#scheduler.step()) === null) break;
      this.#steps += 1;
    }
    if (needsPerson) {
      if (end === DOWN && this.#source.agent?.isIdle !== true) {
        this.oracle.broken("a person said whose the guest is, and the source goes on waiting");
      }
      return;
    }
    const after = endOf(this.#source, this.#dest);
    if (after !== end) this.oracle.broken(`an end does not last: ${end}, then ${after ?? "none"}`);
    const timers = [this.#source, this.#dest].map(({ life }) => life?.timers ?? 0);
    if (timers.some((count) => count > 0)) {
      this.oracle.broken(`timers are left at the end: ${timers.join(" and ")}`);
    }
    const { openSockets } = this.#network;
    if (openSockets > 0) this.oracle.broken(`${openSockets} connections are left at the end`);
  }

  #settle(): void {
    const { owner } = this.oracle;
    this.#trace.note(`a person says that the guest is the ${owner}'s`);
    this.#dest.agent?.settle(owner);
    this.#source.agent?.settle(owner);
  }

  /** A user who wants the guest moved, and somebody who starts what has ended. */
  #look(): void {
    const { nowMs } = this.#scheduler;
    if (this.#truth.isAsleep) return;
    if (this.#quietMs === null) {
      const [limit] = this.#attempts;
      if (limit !== undefined && nowMs >= this.#nextAttemptMs) {
        if (this.#source.agent?.migrate(limit) === true) {
          this.#trace.note("the user wants the guest moved");
          this.#attempts.shift();
          this.#nextAttemptMs = nowMs + this.#random.spread(100, 20_000);
        }
      }
      for (const host of [this.#source, this.#dest]) {
        if (!host.journal.hasFailed || !this.#random.chance(0.05)) continue;
        host.killAgent("its journal failed");
        host.boot();
      }
      if (nowMs > FAULTS_MS_MAX) this.#becomeQuiet();
    }
    this.#scheduler.after(
      LOOK_MS,
      () => {
        this.#look();
      },
      true,
    );
  }

  #becomeQuiet(): void {
    this.#trace.note("nothing goes wrong any more");
    this.#quietMs = this.#scheduler.nowMs;
    this.#attempts.length = 0;
    this.#faults.end();
  }

  /** Null while something is still to come. */
  #end(): End | null {
    const { nowMs } = this.#scheduler;
    const end = endOf(this.#source, this.#dest);
    const isHere = this.#source.machine?.isRunning === true;
    if (end !== null && (this.#attempts.length === 0 || !isHere)) return end;
    if (this.#quietMs === null || nowMs < this.#quietMs + QUIET_MS_MAX) return null;
    const person = needsPerson(this.#source, this.#dest);
    if (person === null) this.oracle.broken("I6: no end is found");
    return person;
  }
}

function turnOfLoop(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
