// What a run has to undo. A signal may ask for it in the middle of anything, also while the run
// itself is undoing: then both wait for the same, one thing at a time, newest first.

import { messageOf } from "@vmferry/core";

export class Closers {
  readonly #closers: (() => Promise<void>)[] = [];
  #closing = Promise.resolve();

  add(close: () => Promise<void>): void {
    this.#closers.push(close);
  }

  /** Never rejects: what cannot be undone is told, and the rest is undone all the same. */
  closeAll(): Promise<void> {
    this.#closing = this.#closing.then(() => this.#drain());
    return this.#closing;
  }

  async #drain(): Promise<void> {
    for (;;) {
      const close = this.#closers.pop();
      if (close === undefined) return;
      await close().catch((error: unknown) => {
        process.stderr.write(`bench: cleaning up: ${messageOf(error)}\n`);
      });
    }
  }
}
