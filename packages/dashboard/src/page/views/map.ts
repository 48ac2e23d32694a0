/** Memory and disks as a map, which is asked for twice a second while they are copied. */
import type { MapArea, MigrationMap, MigrationObject } from "@vmferry/protocol";
import type { AgentClient } from "../api/agent-client.ts";
import { make, makeSection, setText } from "../dom/make.ts";
import { formatTime } from "../format.ts";
import { LETTER_KINDS } from "../state/map-letters.ts";
import { isCopying, isFinal } from "../state/phases.ts";
import { MapAreaView } from "./map-area.ts";

const CELLS = 1024;
const INTERVAL_MS = 500;

export interface MapViewOptions {
  readonly client: AgentClient;
  readonly id: string;
  readonly onFailed: (error: unknown) => void;
}

export class MapView {
  readonly element: HTMLElement;
  readonly #options: MapViewOptions;
  readonly #areas = new Map<string, MapAreaView>();
  readonly #place = make("div", { class: "map-areas" });
  readonly #legend = makeLegend();
  readonly #note = make("p", { class: "empty" });
  readonly #timer: number;
  readonly #dark = matchMedia("(prefers-color-scheme: dark)");
  readonly #onScheme = (): void => {
    for (const area of this.#areas.values()) area.draw();
  };
  #migration: MigrationObject | null = null;
  #asking = false;
  #seenAt: string | null = null;

  constructor(options: MapViewOptions) {
    this.#options = options;
    this.element = makeSection("Map", this.#note, this.#place, this.#legend);
    this.#legend.hidden = true;
    this.#timer = window.setInterval(() => void this.#ask(), INTERVAL_MS);
    this.#dark.addEventListener("change", this.#onScheme);
  }

  show(migration: MigrationObject): void {
    const wasCopying = this.#migration !== null && isCopying(this.#migration.phase);
    this.#migration = migration;
    if (!wasCopying) void this.#ask();
    this.#explain();
  }

  stop(): void {
    window.clearInterval(this.#timer);
    this.#dark.removeEventListener("change", this.#onScheme);
    for (const area of this.#areas.values()) area.stop();
  }

  async #ask(): Promise<void> {
    const { client, id, onFailed } = this.#options;
    if (this.#asking || document.hidden) return;
    if (this.#migration === null || !isCopying(this.#migration.phase)) return;
    this.#asking = true;
    try {
      this.#take(await client.map(id, CELLS));
    } catch (error) {
      onFailed(error);
    } finally {
      this.#asking = false;
    }
  }

  #take({ ram, disks }: MigrationMap): void {
    // The migration may have ended meanwhile; the last picture stays.
    if (ram === null && disks.length === 0) return;
    this.#seenAt = new Date().toISOString();
    if (ram !== null) this.#area("Memory").show(ram);
    for (const disk of disks) this.#area(`Disk ${disk.id}`).show(disk satisfies MapArea);
    this.#explain();
  }

  #area(title: string): MapAreaView {
    let area = this.#areas.get(title);
    if (area === undefined) {
      area = new MapAreaView(title);
      this.#areas.set(title, area);
      this.#legend.hidden = false;
      if (title === "Memory") this.#place.prepend(area.element);
      else this.#place.append(area.element);
    }
    return area;
  }

  #explain(): void {
    const text = this.#explanation();
    this.#note.hidden = text === "";
    setText(this.#note, text);
  }

  #explanation(): string {
    const { phase, role } = this.#migration ?? { phase: "preparing", role: "source" };
    if (this.#seenAt !== null) {
      return isCopying(phase)
        ? ""
        : `As it was at ${formatTime(this.#seenAt)}, the last time it was looked at.`;
    }
    if (isFinal(phase)) return "Not known here any more: the agent draws it while it copies.";
    return role === "dest" ? "Not known here: ask the source agent." : "Nothing is copied yet.";
  }
}

function makeLegend(): HTMLElement {
  const items = LETTER_KINDS.map(({ label, color }) => {
    const swatch = make("span", { class: "swatch", attributes: { "aria-hidden": "true" } });
    swatch.style.backgroundColor = `var(${color})`;
    return make("li", {}, swatch, make("span", { text: label }));
  });
  return make(
    "ul",
    { class: "legend", attributes: { "aria-label": "Colours of the map" } },
    ...items,
  );
}
