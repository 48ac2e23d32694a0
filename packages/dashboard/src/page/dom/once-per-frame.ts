/** Drawing that is asked for any number of times, and done once before the next frame. */
export class OncePerFrame {
  readonly #draw: () => void;
  #frame: number | null = null;

  constructor(draw: () => void) {
    this.#draw = draw;
  }

  request(): void {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      this.#draw();
    });
  }

  stop(): void {
    if (this.#frame !== null) cancelAnimationFrame(this.#frame);
    this.#frame = null;
  }
}
