/** One agent fails at one named place of one migration; then everything has to settle. */
import { ApiProblem, controlOf, type SpawnedAgent } from "@vmferry/testkit";
import { pause, type MoveOptions, type MovingGuest } from "../moving-guest.ts";
import { awaitSettled, findingsOf, isFinal, type Judged, type Settled } from "./await-settled.ts";
import type { FaultBench } from "./fault-bench.ts";
import { processState } from "./process-state.ts";
import { scenarioOf, type Scenario, type ScenarioName, type Side } from "./scenarios.ts";
import { SeededRandom } from "./seeded-random.ts";

export const ACTIONS = ["kill", "stop", "cut", "one-way", "enospc", "eio"] as const;
export type Action = (typeof ACTIONS)[number];

/** What the environment asks of the agent; a link is cut while its agent stands still. */
const SPECS = {
  kill: "kill",
  stop: "stop",
  cut: "stop",
  "one-way": "stop",
  enospc: "fail:ENOSPC",
  eio: "fail:EIO",
} as const satisfies Record<Action, string>;

export interface Shot {
  readonly side: Side;
  readonly name: string;
  readonly scenario: ScenarioName;
  readonly action: Action;
  readonly seed: number;
}

export interface RoundResult extends Shot {
  /** The failpoint was passed and the action taken. */
  readonly hit: boolean;
  /** Of the process: it counts what it passes while it starts. */
  readonly passage: number;
  /** Drawn: how long it stood still, and how long the link was bad. */
  readonly stoodMs: number;
  readonly settled: Settled | null;
  /** It settled only when the agent that failed was started anew, which its log asks for. */
  readonly restarted: boolean;
  /** What is wrong. */
  readonly findings: readonly string[];
  readonly totalMs: number;
}

const WATCH_MS = 4;
const SAID_MS_MAX = 2000;
const REACH_MS_MAX = 45_000;
/** Whoever has not passed it so long after the end of the migration does not any more. */
const LINGER_MS = 1500;
const SETTLE_MS_MAX = 100_000;
/** After an error: who has not settled by then waits for a new life of the agent. */
const ALONE_MS_MAX = 8000;
const ANSWER_MS_MAX = 1000;
const FREE_MS_MAX = 60_000;
const PASSAGES_MAX = 12;
const CANCEL_BYTES = 4 * 1024 * 1024;

export async function runRound(bench: FaultBench, shot: Shot): Promise<RoundResult> {
  const startedMs = performance.now();
  const round = new Round(bench, shot);
  const parts = await round.run();
  return { ...shot, ...parts, totalMs: Math.round(performance.now() - startedMs) };
}

export interface TraceHooks {
  /** The agents have started, nothing is migrated yet. */
  readonly onStarted: () => void;
  readonly onSettled: () => void;
}

/** The scenario alone, its agents writing down what they pass. */
export async function runScenario(
  bench: FaultBench,
  scenario: ScenarioName,
  hooks: TraceHooks,
): Promise<void> {
  const [side] = scenarioOf(scenario).sides;
  if (side === undefined) return;
  const shot: Shot = { side, name: "trace", scenario, action: "kill", seed: 1 };
  const { findings } = await new Round(bench, shot, hooks).run();
  if (findings.length > 0) throw new Error(`${scenario}: ${findings.join("; ")}`);
}

type Parts = Omit<RoundResult, keyof Shot | "totalMs">;

class Round {
  readonly #bench: FaultBench;
  readonly #shot: Shot;
  readonly #scenario: Scenario;
  readonly #random: SeededRandom;
  /** Nothing is made to fail. */
  readonly #hooks: TraceHooks | null;
  #passage = 1;
  #stoodMs = 0;
  #id: string | null = null;
  /** The request for the migration, which is answered when it was looked at first. */
  #asking: Promise<void> = Promise.resolve();
  #isAsking = false;
  /** Of a life that is armed from its start on; settles also where it ended before it listened. */
  #starting: Promise<void> = Promise.resolve();
  #hasStarted = true;

  constructor(bench: FaultBench, shot: Shot, hooks: TraceHooks | null = null) {
    this.#bench = bench;
    this.#hooks = hooks;
    this.#shot = shot;
    this.#scenario = scenarioOf(shot.scenario);
    this.#random = new SeededRandom(shot.seed);
  }

  async run(): Promise<Parts> {
    const bench = this.#bench;
    const guest = await bench.guestAtSource();
    const destConsole = await bench.followDest(guest);
    let owner: Side | null = null;
    try {
      const hit = await this.#approach(guest);
      let sinceMs = performance.now();
      if (hit) sinceMs = await this.#fail();
      await this.#asking;
      const judged: Judged = { bench, guest, destConsole, id: this.#id };
      const { settled, restarted, unmet } = await this.#settle(judged, sinceMs);
      owner = settled?.owner ?? null;
      this.#hooks?.onSettled();
      const seen = owner === null ? [] : await findingsOf(judged, owner);
      const findings = [...unmet.map((what) => `not settled: ${what}`), ...seen];
      const drawn = { passage: this.#passage, stoodMs: this.#stoodMs };
      return { hit, ...drawn, settled, restarted, findings };
    } finally {
      bench.proxy.restore();
      destConsole.close();
      if (owner !== "source") await bench.endGuest();
    }
  }

  /** Up to the failpoint; false where the migration ended without it. */
  async #approach(guest: MovingGuest): Promise<boolean> {
    const { first, request, during } = this.#scenario;
    const { side } = this.#shot;
    if (request === null) return this.#armAtStart();
    if (first === undefined) await this.#armForMigration();
    else await this.#bench.restart(first.side, `${first.at}=kill`);
    this.#asking = this.#ask(guest, request);
    this.#asking.catch(() => undefined);
    if (first !== undefined) await this.#asking;
    const ending = new AbortController();
    const aborted = abortOf(ending.signal);
    if (during !== undefined) void Promise.race([this.#disturb(guest, during, aborted), aborted]);
    try {
      if (first === undefined) return await this.#awaitFault(this.#bench.life(side), true);
      const died = await this.#awaitGone(this.#bench.life(first.side));
      if (!died) return false;
      return await this.#armAtStart();
    } finally {
      ending.abort();
      if (during === "refuse") this.#bench.proxy.restore();
    }
  }

  async #ask(guest: MovingGuest, request: MoveOptions): Promise<void> {
    this.#isAsking = true;
    try {
      this.#id = await this.#migrate(guest, request);
    } catch (error) {
      // Nothing was begun: an agent failed while it was looked at first.
      const isEarly = !(error instanceof ApiProblem) || error.code === "preflight-failed";
      if (!isEarly || this.#hooks !== null) throw error;
    } finally {
      this.#isAsking = false;
    }
  }

  /** An agent that was started anew may be at work still on what the last round left. */
  async #migrate(guest: MovingGuest, request: MoveOptions): Promise<string> {
    const deadlineMs = performance.now() + FREE_MS_MAX;
    for (;;) {
      try {
        return await guest.migrate(request);
      } catch (error) {
        const isBusy = error instanceof ApiProblem && error.code === "migration-active";
        if (!isBusy || performance.now() > deadlineMs) throw error;
        await pause(WATCH_MS);
      }
    }
  }

  get #spec(): string {
    const { name, action } = this.#shot;
    if (this.#hooks !== null) return "trace";
    return `${name}=${SPECS[action]}@${this.#passage}`;
  }

  /** An agent that finds its guest passes some failpoints already then: those are left behind. */
  async #armForMigration(): Promise<void> {
    const { side, name, action } = this.#shot;
    if (this.#hooks !== null) {
      for (const one of this.#scenario.sides) await this.#bench.restart(one, this.#spec);
      this.#hooks.onStarted();
      return;
    }
    const passedAtStart = side === "source" && /^(qmp|mark)\./.test(name);
    if (!passedAtStart) {
      await this.#bench.restart(side, this.#spec);
      return;
    }
    await this.#bench.agent(side).stop();
    while (!(await this.#survivesStart())) {
      if (++this.#passage > PASSAGES_MAX) throw new Error(`${name} is passed without end`);
    }
    if (action !== "kill") await this.#bench.restart(side, this.#spec);
  }

  async #survivesStart(): Promise<boolean> {
    const { side, name } = this.#shot;
    try {
      await this.#bench.start(side, `${name}=kill@${this.#passage}`);
      return true;
    } catch (error) {
      if (this.#bench.life(side).logText().includes(`failpoint ${name}: kill`)) return false;
      throw error;
    }
  }

  /** The fault is expected from the start of the agent's life on, perhaps before it listens. */
  async #armAtStart(): Promise<boolean> {
    const { side } = this.#shot;
    if (this.#scenario.request === null) await this.#bench.agent(side).stop();
    this.#hasStarted = false;
    this.#starting = this.#bench
      .start(side, this.#spec)
      .catch(() => undefined)
      .then(() => {
        this.#hasStarted = true;
      });
    return this.#awaitFault(this.#bench.life(side), false);
  }

  /** Ends the migration in another way than by completing it. */
  async #disturb(
    guest: MovingGuest,
    how: "cancel" | "refuse",
    aborted: Promise<"aborted">,
  ): Promise<void> {
    await this.#asking.catch(() => undefined);
    const id = this.#id;
    if (id === null) return;
    if (how === "cancel") {
      await guest
        .until(id, ({ disks: [disk] }) => (disk?.copiedBytes ?? 0) > CANCEL_BYTES)
        .then(() => this.#bench.lab.source.api.cancel(id))
        .catch(() => undefined);
      return;
    }
    const held = await Promise.race([this.#bench.proxy.hold(controlOf("token")), aborted]);
    if (held === "aborted") return;
    for (const pid of guest.qemus("dest")) process.kill(pid, "SIGKILL");
    // What it says of that is on its way, or it has failed meanwhile.
    const told = this.#bench.lab.dest.api.wait(id, 3000).catch(() => undefined);
    if ((await Promise.race([told, aborted])) !== "aborted") this.#bench.proxy.restore();
  }

  async #awaitGone({ pid }: SpawnedAgent): Promise<boolean> {
    const deadlineMs = performance.now() + REACH_MS_MAX;
    while (performance.now() < deadlineMs) {
      if (processState(pid) === "gone") return true;
      await pause(WATCH_MS);
    }
    return false;
  }

  /** What a process wrote before it died or stood still may still be on its way here. */
  async #saysSo(life: SpawnedAgent): Promise<boolean> {
    const untilMs = performance.now() + SAID_MS_MAX;
    const said = (): boolean => life.logText().includes(`failpoint ${this.#shot.name}: `);
    while (!said() && performance.now() < untilMs) await pause(WATCH_MS);
    return said();
  }

  /** False when the migration is over and it did not come, or it takes too long. */
  async #awaitFault(life: SpawnedAgent, duringMigration: boolean): Promise<boolean> {
    const { name } = this.#shot;
    const deadlineMs = performance.now() + REACH_MS_MAX;
    let overMs: number | null = null;
    let lookedMs = 0;
    while (performance.now() < deadlineMs) {
      const state = processState(life.pid);
      if (state !== "alive") return this.#saysSo(life);
      if (this.#isError && life.logText().includes(`failpoint ${name}: fail:`)) return true;
      const nowMs = performance.now();
      if (nowMs - lookedMs > 200) {
        lookedMs = nowMs;
        // An agent that stands still by now does not answer.
        const late = pause(ANSWER_MS_MAX).then(() => false);
        if (await Promise.race([this.#isOver(duringMigration), late])) overMs ??= nowMs;
        if (overMs !== null && nowMs - overMs > LINGER_MS) return false;
      }
      await pause(WATCH_MS);
    }
    return false;
  }

  /** Both agents are done with the migration, as far as they say. */
  async #isOver(duringMigration: boolean): Promise<boolean> {
    const id = this.#id;
    if (!this.#hasStarted || this.#isAsking) return false;
    if (id === null) return true;
    const { source, dest } = this.#bench.lab;
    const looks = await Promise.all(
      [source, dest].map(({ api }) => api.migration(id).then(isFinal, () => !duringMigration)),
    );
    return looks.every((over) => over);
  }

  get #isError(): boolean {
    return this.#shot.action === "enospc" || this.#shot.action === "eio";
  }

  /** The fault itself, up to a whole link and a living agent; resolves with since when they are. */
  async #fail(): Promise<number> {
    const bench = this.#bench;
    const { side, action } = this.#shot;
    const { pid } = bench.life(side);
    switch (action) {
      case "kill": {
        await this.#starting;
        this.#stoodMs = Math.round(this.#random.between(0, 400));
        await pause(this.#stoodMs);
        const sinceMs = performance.now();
        await bench.start(side);
        return sinceMs;
      }
      case "stop":
        await this.#stand();
        process.kill(pid, "SIGCONT");
        return performance.now();
      case "cut":
      case "one-way": {
        if (action === "cut") bench.proxy.cut();
        else bench.proxy.block(this.#random.pick(["to-dest", "to-source"]));
        process.kill(pid, "SIGCONT");
        this.#stoodMs = Math.round(1000 + 9000 * this.#random.next() ** 3);
        await pause(this.#stoodMs);
        bench.proxy.restore();
        return performance.now();
      }
      case "enospc":
      case "eio":
        return performance.now();
    }
  }

  /** From a pause that nobody notices to one that is longer than the heartbeat's patience. */
  async #stand(): Promise<void> {
    const isLong = this.#random.next() < 0.35;
    this.#stoodMs = Math.round(
      isLong ? this.#random.between(8000, 12_000) : this.#random.between(300, 3000),
    );
    await pause(this.#stoodMs);
  }

  async #settle(
    judged: Judged,
    sinceMs: number,
  ): Promise<{ settled: Settled | null; restarted: boolean; unmet: readonly string[] }> {
    await this.#starting;
    if (this.#isError) {
      const alone = await awaitSettled(judged, { sinceMs, timeoutMs: ALONE_MS_MAX });
      if (alone.settled !== null) return { ...alone, restarted: false };
      await this.#bench.agent(this.#shot.side).stop();
      const againMs = performance.now();
      await this.#bench.start(this.#shot.side);
      const then = await awaitSettled(judged, { sinceMs: againMs, timeoutMs: SETTLE_MS_MAX });
      return { ...then, restarted: true };
    }
    const outcome = await awaitSettled(judged, { sinceMs, timeoutMs: SETTLE_MS_MAX });
    return { ...outcome, restarted: false };
  }
}

function abortOf(signal: AbortSignal): Promise<"aborted"> {
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => {
      resolve("aborted");
    });
  });
}
