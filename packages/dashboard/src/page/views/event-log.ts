import { KeyedRows } from "../dom/keyed-rows.ts";
import { make, makeSection } from "../dom/make.ts";
import { formatTime } from "../format.ts";
import type { LogLine } from "../state/migration-history.ts";
import { makeTable } from "./table.ts";

export class EventLog {
  readonly element: HTMLElement;
  readonly #table = makeTable("Events", ["Time", "Event"]);
  readonly #rows: KeyedRows<LogLine>;
  readonly #empty = make("p", { class: "empty", text: "No events are kept of it." });
  #shown = 0;

  constructor() {
    this.#table.element.classList.add("log");
    this.element = makeSection("Events", this.#table.element, this.#empty);
    this.#rows = new KeyedRows(this.#table.body, {
      keyOf: ({ id }) => String(id),
      make: (line) => {
        const time = make("time", { text: formatTime(line.at), attributes: { datetime: line.at } });
        const row = make(
          "tr",
          {},
          make("td", { class: "number" }, time),
          make("td", { text: line.text }),
        );
        row.dataset["kind"] = line.kind;
        return row;
      },
      update: () => undefined,
    });
    this.show([]);
  }

  show(lines: readonly LogLine[]): void {
    const last = lines.at(-1)?.id ?? 0;
    this.#empty.hidden = lines.length > 0;
    this.#table.element.hidden = lines.length === 0;
    if (last === this.#shown) return;
    this.#shown = last;
    // Newest first: what happens now can be seen without scrolling.
    this.#rows.show(lines.toReversed());
  }
}
