import type { GuestState, MigrationPhase } from "@vmferry/protocol";
import { toneOf, type Tone } from "../state/phases.ts";
import { make, setText } from "./make.ts";

const GUEST_TONES = {
  running: "good",
  paused: "still",
  incoming: "busy",
  "handed-off": "idle",
  stopped: "idle",
  "in-doubt": "doubt",
} as const satisfies Record<GuestState, Tone>;

/** A word with a colour that only repeats what the word says. */
export class Badge {
  readonly element = make("span", { class: "badge" });

  showPhase(phase: MigrationPhase): void {
    this.#show(phase, toneOf(phase));
  }

  showGuest(state: GuestState): void {
    this.#show(state, GUEST_TONES[state]);
  }

  #show(text: string, tone: Tone): void {
    setText(this.element, text);
    this.element.dataset["tone"] = tone;
  }
}
