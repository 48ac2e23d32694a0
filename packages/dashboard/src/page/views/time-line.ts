/** The phases in their order: a bar to scale, and a list that says the same in words. */
import type { MigrationObject } from "@vmferry/protocol";
import { make, makeSection, setText } from "../dom/make.ts";
import { formatMs, formatTime } from "../format.ts";
import { isFinal, spansOf, toneOf, type PhaseSpan } from "../state/phases.ts";

export class TimeLine {
  readonly element: HTMLElement;
  readonly #bar = make("div", { class: "phase-bar", attributes: { "aria-hidden": "true" } });
  readonly #list = make("ol", { class: "phase-list" });

  constructor() {
    this.element = makeSection("Phases", this.#bar, this.#list);
  }

  show(migration: MigrationObject, nowMs: number): void {
    const spans = spansOf(migration, nowMs);
    this.#bar.replaceChildren(...spans.filter(({ phase }) => !isFinal(phase)).map(segmentOf));
    for (const [index, span] of spans.entries()) {
      const item = this.#list.children.item(index) ?? this.#list.appendChild(itemOf(span));
      const duration = item.querySelector(".duration");
      if (duration !== null) setText(duration, isFinal(span.phase) ? "" : formatMs(span.ms));
      item.classList.toggle("now", span.isLast && !isFinal(span.phase));
    }
  }
}

function segmentOf({ phase, ms, isLast }: PhaseSpan): HTMLElement {
  const segment = make("span", { class: isLast ? "now" : "" });
  segment.dataset["tone"] = toneOf(phase);
  segment.dataset["phase"] = phase;
  // Some phases take a millisecond: they keep a width that can be seen.
  segment.style.flexGrow = String(Math.max(1, ms));
  return segment;
}

function itemOf({ phase, at }: PhaseSpan): HTMLElement {
  const item = make(
    "li",
    {},
    make("span", { class: "dot", attributes: { "aria-hidden": "true" } }),
    make("span", { class: "phase", text: phase }),
    make("span", { class: "duration" }),
    make("time", { class: "at", text: formatTime(at), attributes: { datetime: at } }),
  );
  item.dataset["tone"] = toneOf(phase);
  item.dataset["phase"] = phase;
  return item;
}
