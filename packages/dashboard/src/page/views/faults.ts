/** How long the guest waited for pages after a switch to post-copy. */
import type { MigrationFaults } from "@vmferry/protocol";
import { make, makeSection, setText } from "../dom/make.ts";
import { formatUs } from "../format.ts";

/** Bars are logarithmic, from a microsecond to this. */
const US_MAX = 1_000_000;

export class FaultsView {
  readonly element: HTMLElement;
  readonly #empty = make("p", { class: "empty", text: "None: no page was waited for." });
  readonly #count = make("p");
  readonly #bars = [makeBar("half within"), makeBar("99 of 100 within")];

  constructor() {
    const bars = make("dl", { class: "bars" }, ...this.#bars.flatMap(({ nodes }) => nodes));
    this.element = makeSection("Page faults", this.#empty, this.#count, bars);
  }

  show({ count, p50Us, p99Us }: MigrationFaults): void {
    this.#empty.hidden = count > 0;
    this.#count.hidden = count === 0;
    setText(this.#count, `${count} pages were waited for.`);
    for (const [index, us] of [p50Us, p99Us].entries()) this.#bars[index]?.show(us);
  }
}

function makeBar(label: string): {
  nodes: readonly HTMLElement[];
  show: (us: number | null) => void;
} {
  const value = make("span", { class: "value" });
  const bar = make("span", { class: "bar-fill", attributes: { "aria-hidden": "true" } });
  const nodes = [make("dt", { text: label }), make("dd", {}, bar, value)];
  return {
    nodes,
    show: (us) => {
      for (const node of nodes) node.hidden = us === null;
      setText(value, formatUs(us));
      const share = Math.log(Math.max(1, us ?? 1)) / Math.log(US_MAX);
      bar.style.width = `${Math.min(1, share) * 100}%`;
    },
  };
}
