/** What happened in one run: a hash that tells two runs apart, and the lines where they are wanted. */
export class Trace {
  readonly lines: string[] | null;
  readonly #nowMs: () => number;
  #low = 0x811c9dc5;
  #high = 0x1000193;

  constructor(nowMs: () => number, keepsLines: boolean) {
    this.#nowMs = nowMs;
    this.lines = keepsLines ? [] : null;
  }

  /** Of everything that was noted so far. */
  get hash(): string {
    return [this.#high, this.#low]
      .map((half) => (half >>> 0).toString(16).padStart(8, "0"))
      .join("");
  }

  note(what: string): void {
    this.#mix(Math.round(this.#nowMs() * 1000));
    for (let i = 0; i < what.length; i++) this.#mix(what.charCodeAt(i));
    this.comment(what);
  }

  /** Something happens, whatever it is. */
  tick(): void {
    this.#mix(Math.round(this.#nowMs() * 1000));
  }

  /** For readers alone: what may differ between two runs of one seed. */
  comment(what: string): void {
    this.lines?.push(`${this.#nowMs().toFixed(3).padStart(12)}  ${what}`);
  }

  #mix(value: number): void {
    this.#low = Math.imul(this.#low ^ value, 0x01000193);
    this.#high = Math.imul(this.#high ^ this.#low ^ (this.#low >>> 15), 0x85ebca6b);
  }
}
