// Shows a migration's events to a person: on a terminal as one line that is drawn again and again,
// elsewhere as a line at each change of phase and every two seconds in between.

import type { MigrationEvent } from "../api/migration.ts";
import { printable } from "./printable.ts";
import { progressLine } from "./progress-line.ts";

const PLAIN_INTERVAL_MS = 2000;
const COLUMNS_DEFAULT = 80;
const ELAPSED_COLUMNS = 8;
/** For the `^C` that a terminal writes at the end of the line: it must not begin a new one. */
const SPARE_COLUMNS = 3;
const CLEAR_TO_END = "\x1b[K";

/** What the display needs of `process.stdout`. */
export interface LineOutput {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export class ProgressDisplay {
  readonly #output: LineOutput;
  readonly #redraws: boolean;
  #drawn = "";
  #phase = "";
  #toldAtMs = -Infinity;

  constructor(output: LineOutput, environment: { readonly TERM?: string | undefined }) {
    this.#output = output;
    // A dumb terminal cannot go back to the beginning of a line.
    this.#redraws = output.isTTY === true && environment.TERM !== "dumb";
  }

  show(event: MigrationEvent): void {
    const { warning } = event;
    if (warning !== undefined) this.say(`warning: ${warning.detail} (${warning.code})`);
    if (this.#redraws) this.#redraw(this.#lineOf(event, this.#columns - SPARE_COLUMNS));
    else this.#print(event);
  }

  /** A line of its own, which stays. */
  say(text: string): void {
    const shown = printable(text);
    // One write, which never shows an empty line: that would flicker.
    if (this.#drawn === "") this.#output.write(`${shown}\n`);
    else {
      const cleared = shown.replaceAll("\n", `${CLEAR_TO_END}\n`);
      this.#output.write(`\r${cleared}${CLEAR_TO_END}\n${this.#drawn}`);
    }
  }

  /** Takes the line that is drawn again and again away; what was said stays. */
  close(): void {
    if (this.#drawn !== "") this.#output.write(`\r${CLEAR_TO_END}`);
    this.#drawn = "";
  }

  /** A terminal that was never told its size says 0. */
  get #columns(): number {
    const { columns = 0 } = this.#output;
    return columns === 0 ? COLUMNS_DEFAULT : columns;
  }

  #redraw(line: string): void {
    this.#drawn = line;
    this.#output.write(`\r${line}${CLEAR_TO_END}`);
  }

  /** By the agent's clock: what is replayed comes all at once. */
  #print(event: MigrationEvent): void {
    const { phase } = event.migration;
    const atMs = Date.parse(event.at);
    if (phase === this.#phase && atMs - this.#toldAtMs < PLAIN_INTERVAL_MS) return;
    this.#phase = phase;
    this.#toldAtMs = atMs;
    this.#output.write(`${this.#lineOf(event, Infinity)}\n`);
  }

  #lineOf({ at, migration }: MigrationEvent, columnsMax: number): string {
    const startedAt = migration.phases[0]?.at ?? at;
    const elapsedMs = Math.max(0, Date.parse(at) - Date.parse(startedAt));
    const elapsed = `${(elapsedMs / 1000).toFixed(1)} s`.padStart(ELAPSED_COLUMNS);
    const restColumns = Math.max(0, columnsMax - elapsed.length - 2);
    return `${elapsed}  ${progressLine(migration, restColumns)}`.slice(0, Math.max(0, columnsMax));
  }
}
