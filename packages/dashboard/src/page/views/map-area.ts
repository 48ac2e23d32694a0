/** One area of memory or disk as a picture of cells, with its shares in words. */
import type { MapArea } from "@vmferry/protocol";
import { make, setText } from "../dom/make.ts";
import { formatBytes, formatShare } from "../format.ts";
import { LETTER_KINDS, sharesOf } from "../state/map-letters.ts";

const CELL_MIN = 7;
const CELL_MAX = 16;
const GAP = 1;

export class MapAreaView {
  readonly element: HTMLElement;
  readonly #title: string;
  readonly #canvas = make("canvas", { attributes: { role: "img" } });
  readonly #size = make("span", { class: "muted" });
  readonly #words = make("p", { class: "muted words" });
  readonly #resize: ResizeObserver;
  #area: MapArea = { totalBytes: 0, cells: "" };

  constructor(title: string) {
    this.#title = title;
    const head = make("div", { class: "chart-head" }, make("h4", { text: title }), this.#size);
    const place = make("div", { class: "map" }, this.#canvas);
    this.element = make("div", { class: "map-area" }, head, place, this.#words);
    this.#resize = new ResizeObserver(() => {
      this.draw();
    });
    this.#resize.observe(place);
  }

  show(area: MapArea): void {
    this.#area = area;
    setText(this.#size, formatBytes(area.totalBytes));
    const words = sharesOf(area.cells)
      .map(({ kind, share }) => `${formatShare(share)} ${kind.label}`)
      .join(" · ");
    setText(this.#words, words);
    this.#canvas.setAttribute("aria-label", `Map of ${this.#title}: ${words}`);
    this.draw();
  }

  draw(): void {
    const { cells } = this.#area;
    const width = this.#canvas.parentElement?.clientWidth ?? 0;
    const context = this.#canvas.getContext("2d");
    if (width === 0 || cells.length === 0 || context === null) return;
    const { columns, step } = gridOf(width, cells.length);
    const rows = Math.ceil(cells.length / columns);
    const scale = window.devicePixelRatio;
    this.#canvas.width = Math.round(columns * step * scale);
    this.#canvas.height = Math.round(rows * step * scale);
    this.#canvas.style.width = `${columns * step}px`;
    this.#canvas.style.height = `${rows * step}px`;
    context.scale(scale, scale);
    const colors = colorsOfLetters();
    for (let cell = 0; cell < cells.length; cell++) {
      context.fillStyle = colors.get(cells.charAt(cell)) ?? "transparent";
      const [column, row] = [cell % columns, Math.floor(cell / columns)];
      context.fillRect(column * step, row * step, step - GAP, step - GAP);
    }
  }

  stop(): void {
    this.#resize.disconnect();
  }
}

/** As many columns as a power of two allows, so that rows are round amounts of bytes. */
function gridOf(width: number, cells: number): { columns: number; step: number } {
  let columns = 1;
  while (columns * 2 * CELL_MIN <= width && columns < cells) columns *= 2;
  return { columns, step: Math.min(CELL_MAX, width / columns) };
}

function colorsOfLetters(): ReadonlyMap<string, string> {
  const style = getComputedStyle(document.documentElement);
  return new Map(
    LETTER_KINDS.map(({ letter, color }) => [letter, style.getPropertyValue(color).trim()]),
  );
}
