import { make } from "../dom/make.ts";

export interface Table {
  /** Scrolls by itself where it is wider than the page; a keyboard can scroll it too. */
  readonly element: HTMLElement;
  readonly body: HTMLTableSectionElement;
}

export function makeTable(name: string, columns: readonly string[]): Table {
  const body = make("tbody");
  const head = make(
    "tr",
    {},
    ...columns.map((text) => make("th", { text, attributes: { scope: "col" } })),
  );
  const table = make(
    "table",
    { attributes: { "aria-label": name } },
    make("thead", {}, head),
    body,
  );
  const attributes = { role: "region", "aria-label": `${name}, table`, tabindex: "0" };
  return { element: make("div", { class: "scroll", attributes }, table), body };
}
