/**
 * Looks at every world that the rules allow, the nearest first, so that the way to a broken promise
 * is the shortest; then goes back from the ends: whatever no end is reached from without yet another
 * fault is stuck.
 */
import { Model } from "./model.ts";
import { brokenPromise, endOf, ENDS } from "./promises.ts";
import type { Rules } from "./rules.ts";
import { stepsFrom } from "./steps.ts";
import { firstWorld, type World } from "./world.ts";
import { WorldSet } from "./world-set.ts";

export interface Found {
  readonly worlds: number;
  readonly steps: number;
  /** The broken promise and the shortest way to it. */
  readonly violation: { readonly promise: string; readonly trace: readonly string[] } | null;
  /** The shortest way to where nothing more can come of it. */
  readonly stuck: readonly string[] | null;
  /** Over a link: events that came where their machine has no answer to them. */
  readonly illegal: readonly string[];
  /** How many worlds there are of each kind of end. */
  readonly ends: Readonly<Record<string, number>>;
  /** Worlds that can only end with a person's decision, and the shortest way to one. */
  readonly needPerson: number;
  readonly needPersonTrace: readonly string[] | null;
}

export function searchWorlds(rules: Rules): Found {
  return new Search(rules).run();
}

class Search {
  readonly #model: Model;
  readonly #worlds = new WorldSet();
  readonly #parents = new Numbers();
  readonly #ends: number[][] = ENDS.map(() => []);
  /** Steps without a fault, backwards: a list for each world. */
  readonly #lastInto = new Numbers();
  readonly #before = new Numbers();
  readonly #from = new Numbers();
  readonly #listSteps: (world: World) => void;
  #at = 0;
  #steps = 0;
  /** While a trace is made: the labels of the steps that lead to a world. */
  #labelOf: ((label: string, world: World) => void) | null = null;

  constructor(rules: Rules) {
    this.#model = new Model(rules);
    this.#listSteps = stepsFrom(this.#model, (label, world, fault = false) => {
      if (this.#labelOf === null) this.#reach(world, fault);
      else this.#labelOf(label, world);
    });
    this.#add(firstWorld(rules.budgets), -1);
  }

  run(): Found {
    for (; this.#at < this.#worlds.size; this.#at++) {
      const world = this.#worlds.at(this.#at);
      const promise = brokenPromise(this.#model, world);
      if (promise !== null) {
        return this.#found({ violation: { promise, trace: this.#traceTo(this.#at) } });
      }
      const end = endOf(this.#model, world);
      if (end >= 0) this.#ends[end]!.push(this.#at);
      this.#listSteps(world);
    }
    const reached = new Uint8Array(this.#worlds.size);
    const persons = ENDS.length - 1;
    for (let end = 0; end < persons; end++) this.#goBack(this.#ends[end]!, reached);
    const lost = reached.indexOf(0);
    const needPerson = reached.reduce((count, each) => count + 1 - each, 0);
    this.#goBack(this.#ends[persons]!, reached);
    const stuck = reached.indexOf(0);
    return this.#found({
      stuck: stuck < 0 ? null : this.#traceTo(stuck),
      needPerson,
      needPersonTrace: lost < 0 ? null : this.#traceTo(lost),
    });
  }

  #found(found: Partial<Found>): Found {
    const ends = Object.fromEntries(ENDS.map((name, end) => [name, this.#ends[end]!.length]));
    const nothing = { violation: null, stuck: null, needPerson: 0, needPersonTrace: null };
    const illegal = [...this.#model.illegal].sort();
    return { worlds: this.#worlds.size, steps: this.#steps, ends, illegal, ...nothing, ...found };
  }

  #reach(world: World, fault: boolean): void {
    this.#steps++;
    const to = this.#add(world, this.#at);
    if (fault) return;
    this.#before.push(this.#lastInto.at(to));
    this.#from.push(this.#at);
    this.#lastInto.set(to, this.#from.size - 1);
  }

  #add(world: World, parent: number): number {
    const size = this.#worlds.size;
    const index = this.#worlds.indexOf(world);
    if (index < size) return index;
    this.#parents.push(parent);
    this.#lastInto.push(-1);
    return index;
  }

  #goBack(ends: readonly number[], reached: Uint8Array): void {
    const open = new Numbers();
    const visit = (world: number): void => {
      if (reached[world] !== 0) return;
      reached[world] = 1;
      open.push(world);
    };
    ends.forEach(visit);
    for (let next = 0; next < open.size; next++) {
      let step = this.#lastInto.at(open.at(next));
      for (; step >= 0; step = this.#before.at(step)) visit(this.#from.at(step));
    }
  }

  /** Names the steps again that led there; they are not kept. */
  #traceTo(index: number): string[] {
    const trace: string[] = [];
    for (let to = index; this.#parents.at(to) >= 0; to = this.#parents.at(to)) {
      trace.unshift(this.#labelBetween(this.#parents.at(to), to));
    }
    return trace;
  }

  #labelBetween(from: number, to: number): string {
    const labels: string[] = [];
    this.#labelOf = (label, world) => {
      if (this.#worlds.indexOf(world) === to) labels.push(label);
    };
    this.#listSteps(this.#worlds.at(from));
    this.#labelOf = null;
    return labels[0]!;
  }
}

/** A list of numbers that grows, outside the heap. */
class Numbers {
  #values = new Int32Array(1 << 16);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  at(index: number): number {
    return this.#values[index]!;
  }

  set(index: number, value: number): void {
    this.#values[index] = value;
  }

  push(value: number): void {
    if (this.#size === this.#values.length) {
      const more = new Int32Array(this.#size * 2);
      more.set(this.#values);
      this.#values = more;
    }
    this.#values[this.#size++] = value;
  }
}
