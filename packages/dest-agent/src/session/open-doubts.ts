/** What does not arrive, or is behind the agent although it has (`export`). */
type Doubt = "memory" | "disks" | "export";

/** Why a guest that runs here does not become whole, in words; shown as long as any of it is so. */
export class OpenDoubts {
  /** Null when nothing of that kind is left. */
  readonly #show: (text: string | null) => void;
  readonly #texts = new Map<Doubt, string>();

  constructor(show: (text: string | null) => void) {
    this.#show = show;
  }

  set(what: Doubt, text: string | null): void {
    if (text === null && !this.#texts.delete(what)) return;
    if (text !== null) this.#texts.set(what, text);
    this.#show(this.#texts.size === 0 ? null : [...this.#texts.values()].join(" "));
  }
}
