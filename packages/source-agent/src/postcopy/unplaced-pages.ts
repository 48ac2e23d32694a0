/** How many pages of a lane were sent and not placed, as far as the dest has told. */
export class UnplacedPages {
  readonly #frames: { readonly pages: number; bytes: number }[] = [];
  #pages = 0;

  get count(): number {
    return this.#pages;
  }

  sent(pages: number, bytes: number): void {
    this.#frames.push({ pages, bytes });
    this.#pages += pages;
  }

  /** Bytes of frames, in the order in which they were sent. */
  placed(bytes: number): void {
    let left = bytes;
    for (let first = this.#frames[0]; first !== undefined && left > 0; first = this.#frames[0]) {
      const told = Math.min(left, first.bytes);
      first.bytes -= told;
      left -= told;
      if (first.bytes > 0) return;
      this.#frames.shift();
      this.#pages -= first.pages;
    }
  }
}
