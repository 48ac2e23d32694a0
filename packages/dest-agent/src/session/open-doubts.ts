/** `disks`: something of them is lost; `images`: they cannot be opened; `export`: they are whole behind the agent. */
type Kind = "memory" | "disks" | "images" | "export";

/** Why a guest that runs here does not become whole, in words; shown as long as any of it is so. */
export class OpenDoubts {
  /** Null when nothing of that kind is left. */
  readonly #show: (text: string | null) => void;
  readonly #texts = new Map<Kind, string>();

  constructor(show: (text: string | null) => void) {
    this.#show = show;
  }

  set(what: Kind, text: string | null): void {
    if (text === null && !this.#texts.delete(what)) return;
    if (text !== null) this.#texts.set(what, text);
    this.#show(this.#texts.size === 0 ? null : [...this.#texts.values()].join(" "));
  }
}
