/** Elements with text. What the agent says becomes text and attributes, never markup. */

export interface MakeOptions {
  readonly class?: string;
  readonly text?: string;
  readonly attributes?: Readonly<Record<string, string>>;
}

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  options: MakeOptions = {},
  ...children: readonly Node[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (options.class !== undefined) element.className = options.class;
  if (options.text !== undefined) element.textContent = options.text;
  for (const [name, value] of Object.entries(options.attributes ?? {})) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function makeButton(text: string, onClick: () => void, kind = ""): HTMLButtonElement {
  const button = make("button", { text, class: kind, attributes: { type: "button" } });
  button.addEventListener("click", onClick);
  return button;
}

let labels = 0;

/** A region with a heading of its own, which is its name. */
export function makeSection(title: string, ...children: readonly Node[]): HTMLElement {
  const id = `section-${++labels}`;
  const heading = make("h3", { text: title, attributes: { id } });
  return make(
    "section",
    { class: "card", attributes: { "aria-labelledby": id } },
    heading,
    ...children,
  );
}

/** Leaves the element alone where nothing changed: screen readers would read it again. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
