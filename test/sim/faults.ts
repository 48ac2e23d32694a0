/**
 * What goes wrong in one run, drawn from its seed before it begins: a few kinds of faults, each at
 * some act of an agent or at some event of the world. Which kinds there are differs between seeds, so
 * that a run is not always everything at once.
 */
import type { DestHost } from "./dest-host.ts";
import type { Side } from "./life.ts";
import type { Machine } from "./machine.ts";
import type { Oracle } from "./oracle.ts";
import type { Random } from "./random.ts";
import type { Setting } from "./setting.ts";
import type { SourceHost } from "./source-host.ts";

export const FAULTS = [
  "kill source agent",
  "kill dest agent",
  "stop source agent",
  "stop dest agent",
  "freeze source agent",
  "freeze dest agent",
  "crash source host",
  "crash dest host",
  "kill source QEMU",
  "kill dest QEMU",
  "stall source QEMU",
  "stall dest QEMU",
  "spoil migration",
  "cut link",
  "cut to source",
  "cut to dest",
  "reset link",
  "half-open link",
  "source ENOSPC",
  "source EIO",
  "dest ENOSPC",
  "dest EIO",
  "cont fails",
  "dest QEMU survives",
  "damage",
  "share hangs",
  "share fails",
  "no room",
  "cancel",
  "lose dest journal",
  "lose source journal",
] as const;
export type Fault = (typeof FAULTS)[number];

/** These take from a person what alone could tell: not in every run. */
const RARE: readonly Fault[] = ["lose dest journal", "lose source journal"];
const FAULTS_MAX = 7;
const MOMENTS = 500;
/** What matters most happens in the few moments after these. */
const HOT_RECORDS = ["reserved", "prepared", "handed-off", "taken", "released", "refused"];
const HOT_MOMENTS = 25;
const OUTAGE_MS: readonly [number, number] = [5, 90_000];
const STALL_MS: readonly [number, number] = [50, 20_000];

export interface FaultPorts {
  readonly setting: Setting;
  readonly source: SourceHost;
  readonly dest: DestHost;
  readonly oracle: Oracle;
}

export class Faults {
  readonly planned: readonly Fault[];
  readonly #ports: FaultPorts;
  readonly #atAct = new Map<number, Fault[]>();
  readonly #atRecord: { readonly fault: Fault; readonly record: string }[] = [];
  readonly #atStep = new Map<number, Fault[]>();
  #acts = 0;
  #steps = 0;
  #isOver = false;

  constructor(ports: FaultPorts, random: Random) {
    this.#ports = ports;
    const rate = random.pick([0.08, 0.2, 0.5]);
    const enabled = FAULTS.filter((fault) => random.chance(RARE.includes(fault) ? rate / 3 : rate));
    const count = enabled.length === 0 ? 0 : random.below(FAULTS_MAX + 1);
    this.planned = Array.from({ length: count }, () => random.pick(enabled));
    for (const fault of this.planned) {
      const isHot = random.chance(0.4);
      if (isHot) this.#atRecord.push({ fault, record: random.pick(HOT_RECORDS) });
      else this.#plan(fault, random.below(random.pick([60, 200, MOMENTS])));
    }
  }

  /** A record has become durable: some faults wait for that, to strike in the moments after it. */
  onRecord(record: string | null): void {
    const due = this.#atRecord.filter((each) => each.record === record);
    for (const each of due) {
      this.#atRecord.splice(this.#atRecord.indexOf(each), 1);
      const { random } = this.#ports.setting;
      this.#plan(each.fault, random.below(HOT_MOMENTS), true);
    }
  }

  /** An agent is about to act on the world. */
  onPort(): void {
    this.#strike(this.#atAct, this.#acts);
    this.#acts += 1;
  }

  /** The world has done something. */
  onStep(): void {
    this.#strike(this.#atStep, this.#steps);
    this.#steps += 1;
  }

  /** Nothing goes wrong any more, and what was broken is mended. */
  end(): void {
    const { source, dest, setting } = this.#ports;
    this.#isOver = true;
    setting.network.mend("source", "dest");
    setting.share?.mend();
    dest.contFailures = 0;
    dest.damages = 0;
    dest.refusals = 0;
    dest.survivals = 0;
    for (const host of [source, dest]) {
      host.journal.mend();
      if (host.journal.hasFailed) host.killAgent("its journal failed");
      host.boot();
    }
  }

  #plan(fault: Fault, moment: number, isFromNow = false): void {
    const { random } = this.#ports.setting;
    const isAtAct = isOfAgent(fault) && random.chance(0.8);
    const moments = isAtAct ? this.#atAct : this.#atStep;
    const at = moment + (isFromNow ? (isAtAct ? this.#acts : this.#steps) : 0);
    moments.set(at, [...(moments.get(at) ?? []), fault]);
  }

  #strike(moments: ReadonlyMap<number, readonly Fault[]>, moment: number): void {
    if (this.#isOver) return;
    for (const fault of moments.get(moment) ?? []) this.#happen(fault);
  }

  #happen(fault: Fault): void {
    const { setting, source, dest } = this.#ports;
    const { random, trace } = setting;
    trace.note(`fault: ${fault}`);
    switch (fault) {
      case "stop source agent":
      case "stop dest agent":
        this.#stop(this.#hostOf(fault));
        return;
      case "freeze source agent":
      case "freeze dest agent":
        this.#hostOf(fault).life?.freeze(random.spread(...OUTAGE_MS));
        return;
      case "crash source host":
      case "crash dest host":
      case "kill source QEMU":
      case "kill dest QEMU":
        this.#crash(fault);
        return;
      case "stall source QEMU":
      case "stall dest QEMU":
        this.#stall(this.#hostOf(fault).machine);
        return;
      case "spoil migration":
        source.machine?.spoil();
        return;
      case "source ENOSPC":
      case "dest ENOSPC":
        this.#hostOf(fault).journal.failNext("write");
        return;
      case "source EIO":
      case "dest EIO":
        this.#hostOf(fault).journal.failNext("datasync");
        return;
      case "cont fails":
        dest.contFailures += random.pick([1, 1, 2, 50]);
        return;
      case "dest QEMU survives":
        dest.survivals += random.pick([1, 3]);
        return;
      case "damage":
        dest.damages += 1;
        return;
      case "no room":
        dest.refusals += 1;
        return;
      case "cancel":
        source.agent?.cancel();
        return;
      case "share hangs":
      case "share fails":
        this.#spoilShare(fault);
        return;
      case "kill source agent":
      case "kill dest agent":
      case "lose dest journal":
      case "lose source journal":
        this.#restart(this.#hostOf(fault), (host) => {
          host.killAgent("killed");
          if (fault.startsWith("lose")) host.journal.lose();
        });
        return;
      case "half-open link":
      case "reset link":
      case "cut link":
      case "cut to source":
      case "cut to dest":
        this.#cut(fault);
    }
  }

  #hostOf(fault: Fault): SourceHost | DestHost {
    return fault.includes("source") ? this.#ports.source : this.#ports.dest;
  }

  #restart(host: SourceHost | DestHost, kill: (host: SourceHost | DestHost) => void): void {
    if (host.life === null) return;
    kill(host);
    this.#later(OUTAGE_MS, () => {
      if (host.isUp) host.boot();
    });
  }

  /** SIGTERM, and SIGKILL for one that takes too long. */
  #stop(host: SourceHost | DestHost): void {
    const { life, agent } = host;
    if (life === null || agent === null) return;
    let isOver = false;
    const end = (): void => {
      if (isOver || life.isDead) return;
      isOver = true;
      this.#restart(host, () => {
        host.killAgent("it was stopped");
      });
    };
    agent.stop().then(end, end);
    life.later(10_000, end);
  }

  #crash(fault: Fault): void {
    const host = this.#hostOf(fault);
    const { machine } = host;
    if (fault.startsWith("kill")) {
      this.#kill(machine);
      return;
    }
    const crash = (): void => {
      host.crash();
    };
    if (machine === null) crash();
    else this.#ports.oracle.killed(machine, crash);
    this.#later([500, 90_000], () => {
      host.boot();
    });
  }

  #kill(machine: Machine | null): void {
    if (machine === null) return;
    this.#ports.oracle.killed(machine, () => {
      machine.kill("killed");
    });
  }

  #stall(machine: Machine | null): void {
    const { random, scheduler } = this.#ports.setting;
    if (machine !== null) machine.stalledUntilMs = scheduler.nowMs + random.spread(...STALL_MS);
  }

  #spoilShare(fault: Fault): void {
    const { share, random } = this.#ports.setting;
    if (fault === "share hangs") share?.hangFor(random.spread(...OUTAGE_MS));
    else if (share !== null) share.failures += random.pick([1, 2, 20]);
  }

  #cut(fault: Fault): void {
    const { network } = this.#ports.setting;
    if (fault === "reset link") network.resetAll();
    if (fault === "half-open link") network.forgetAll();
    if (!fault.startsWith("cut")) return;
    const both: readonly Side[] = ["source", "dest"];
    const hearers = both.filter((side) => fault === "cut link" || fault.endsWith(side));
    network.cut(...hearers);
    this.#later(OUTAGE_MS, () => {
      network.mend(...hearers);
    });
  }

  #later([from, to]: readonly [number, number], run: () => void): void {
    const { random, scheduler } = this.#ports.setting;
    scheduler.after(random.spread(from, to), run);
  }
}

/** What strikes in the middle of what an agent does. */
function isOfAgent(fault: Fault): boolean {
  return /agent|host|journal|ENOSPC|EIO/.test(fault);
}
