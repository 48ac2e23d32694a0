import { makeSection, make } from "../dom/make.ts";
import { formatBytes, formatRate } from "../format.ts";
import type { Sample } from "../state/migration-history.ts";
import { Chart, type ChartOptions } from "./chart.ts";

const MEMORY = { label: "memory", color: "--line-memory" };
const DISKS = { label: "disks", color: "--line-disks" };

interface Kind extends ChartOptions {
  readonly valuesOf: readonly ((sample: Sample) => number | null)[];
}

const KINDS: readonly Kind[] = [
  {
    title: "Remaining",
    series: [MEMORY, DISKS],
    format: formatBytes,
    valuesOf: [(sample) => sample.ramRemaining, (sample) => sample.diskRemaining],
  },
  {
    title: "Dirty rate",
    series: [MEMORY],
    format: formatRate,
    valuesOf: [(sample) => sample.dirtyRate],
  },
  {
    title: "Wire rate",
    series: [{ label: "sent", color: "--line-wire" }],
    format: formatRate,
    valuesOf: [(sample) => sample.wireRate],
  },
  {
    title: "Held back",
    series: [MEMORY, DISKS],
    format: formatBytes,
    valuesOf: [(sample) => sample.ramHeld, (sample) => sample.diskHeld],
  },
];

export class Charts {
  readonly element: HTMLElement;
  readonly #charts = KINDS.map((kind) => ({ kind, chart: new Chart(kind) }));
  readonly #dark = matchMedia("(prefers-color-scheme: dark)");
  readonly #onScheme = (): void => {
    for (const { chart } of this.#charts) chart.redraw();
  };

  constructor() {
    const grid = make(
      "div",
      { class: "charts" },
      ...this.#charts.map(({ chart }) => chart.element),
    );
    this.element = makeSection("Over time", grid);
    this.#dark.addEventListener("change", this.#onScheme);
  }

  show(samples: readonly Sample[]): void {
    const seconds = samples.map((sample) => sample.seconds);
    for (const { kind, chart } of this.#charts) {
      chart.show([seconds, ...kind.valuesOf.map((valueOf) => samples.map(valueOf))]);
    }
  }

  stop(): void {
    this.#dark.removeEventListener("change", this.#onScheme);
    for (const { chart } of this.#charts) chart.stop();
  }
}
