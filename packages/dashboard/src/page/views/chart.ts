/** One quantity over time. What it shows is also said in words, to whom a picture says nothing. */
import uPlot from "uplot";
import { make, setText } from "../dom/make.ts";
import { UNKNOWN } from "../format.ts";

export interface ChartSeries {
  readonly label: string;
  /** Name of the style sheet's variable. */
  readonly color: string;
}

export interface ChartOptions {
  readonly title: string;
  readonly series: readonly ChartSeries[];
  readonly format: (value: number | null) => string;
}

/** Seconds, then a list of values a series. */
export type ChartData = readonly [readonly number[], ...(readonly (number | null)[])[]];

const HEIGHT = 150;
/** Steps of an axis of bytes. */
const STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power);

export class Chart {
  readonly element: HTMLElement;
  readonly #options: ChartOptions;
  readonly #plot: uPlot;
  readonly #place: HTMLElement;
  readonly #values: readonly HTMLElement[];
  readonly #empty = make("p", { class: "empty", text: "Not measured." });
  readonly #resize: ResizeObserver;
  #data: ChartData = [[]];

  constructor(options: ChartOptions) {
    this.#options = options;
    this.#place = make("div", { class: "plot", attributes: { role: "img" } });
    this.#values = options.series.map(() => make("span", { class: "value", text: UNKNOWN }));
    const legend = options.series.map(({ label, color }, index) => {
      const swatch = make("span", { class: "swatch", attributes: { "aria-hidden": "true" } });
      swatch.style.backgroundColor = `var(${color})`;
      const name = make("span", { text: label });
      return make("span", { class: "legend-item" }, swatch, name, this.#values[index] ?? name);
    });
    const head = make(
      "div",
      { class: "chart-head" },
      make("h4", { text: options.title }),
      ...legend,
    );
    this.element = make("div", { class: "chart" }, head, this.#place, this.#empty);
    this.#plot = new uPlot(this.#plotOptions(), [[], ...options.series.map(() => [])], this.#place);
    this.#resize = new ResizeObserver(() => {
      const width = Math.floor(this.#place.clientWidth);
      if (width > 0) this.#plot.setSize({ width, height: HEIGHT });
    });
    this.#resize.observe(this.#place);
  }

  show(data: ChartData): void {
    this.#data = data;
    const [seconds, ...lists] = data;
    this.#plot.setData([[...seconds], ...lists.map((values) => [...values])]);
    const isEmpty = lists.every((values) => values.every((value) => value === null));
    this.#empty.hidden = !isEmpty;
    this.#place.classList.toggle("without-data", isEmpty);
    this.#showValues(null);
    this.#place.setAttribute("aria-label", this.#inWords());
  }

  /** After the colours have changed. */
  redraw(): void {
    this.#plot.redraw(false, true);
  }

  stop(): void {
    this.#resize.disconnect();
    this.#plot.destroy();
  }

  /** Beside the title: the values under the pointer, or the latest. */
  #showValues(index: number | null): void {
    const [, ...lists] = this.#data;
    for (const [series, element] of this.#values.entries()) {
      const values = lists[series] ?? [];
      const value = index === null ? latestOf(values) : (values[index] ?? null);
      setText(element, this.#options.format(value));
    }
  }

  #inWords(): string {
    const { title, series, format } = this.#options;
    const [, ...lists] = this.#data;
    const parts = series.map(({ label }, index) => {
      const values = lists[index] ?? [];
      const known = values.filter((value) => value !== null);
      if (known.length === 0) return `${label}: not known`;
      const highest = known.reduce((most, value) => Math.max(most, value), 0);
      return `${label}: latest ${format(latestOf(values))}, highest ${format(highest)}`;
    });
    return `${title} over time. ${parts.join("; ")}.`;
  }

  #plotOptions(): uPlot.Options {
    const { series, format } = this.#options;
    const axis = { stroke: ink("--muted"), grid: { stroke: ink("--grid"), width: 1 } };
    const ticks = { stroke: ink("--grid"), width: 1, size: 4 };
    const font = "11px system-ui, sans-serif";
    return {
      width: 320,
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 5 } },
      scales: {
        x: { time: false },
        y: { range: (_, __, high) => [0, Math.max(high * 1.1, 1024)] },
      },
      axes: [
        { ...axis, ticks, font, size: 28, space: 60, values: (_, at) => at.map((s) => `${s} s`) },
        {
          ...axis,
          ticks,
          font,
          size: 68,
          space: 32,
          incrs: STEPS,
          values: (_, at) => at.map((value) => format(value)),
        },
      ],
      series: [{}, ...series.map(({ label, color }) => seriesOf(label, color))],
      hooks: {
        setCursor: [
          (plot) => {
            this.#showValues(plot.cursor.idx ?? null);
          },
        ],
      },
    };
  }
}

function seriesOf(label: string, color: string): uPlot.Series {
  return { label, stroke: ink(color), width: 1.75, spanGaps: false, points: { show: false } };
}

function latestOf(values: readonly (number | null)[]): number | null {
  return values.findLast((value) => value !== null) ?? null;
}

/** Looked up at each drawing: light and dark differ. */
function ink(name: string): () => string {
  return () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
