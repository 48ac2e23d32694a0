/** A PAGES frame whose pages are read from the store. */
import { PageFrame } from "../ram/page-frame.ts";
import type { StoredPages } from "./stored-pages.ts";

/** A frame is 260 KiB. */
const FREE_MAX = 32;

/** Is told of the content of every page that is sent. */
export interface SentPageHashes {
  page(block: number, page: number, data: Buffer): void;
  zeroPage(block: number, page: number): void;
}

/** Pages that follow each other in the store and in the frame. */
interface Piece {
  readonly first: number;
  readonly slot: number;
  count: number;
}

export class StoredFrame {
  readonly pages: number[] = [];
  readonly #frame = new PageFrame();
  readonly #pieces: Piece[] = [];
  /** Why the last read failed. */
  readError: unknown = null;

  get block(): number {
    return this.#frame.block;
  }

  get runs(): number {
    return this.#frame.runs;
  }

  get dataPages(): number {
    return this.#frame.dataPages;
  }

  get full(): boolean {
    return this.#frame.full;
  }

  reset(block: number): void {
    this.#frame.reset(block);
    this.pages.length = 0;
    this.#pieces.length = 0;
  }

  add(page: number, isZero: boolean): void {
    this.pages.push(page);
    if (isZero) {
      this.#frame.addZero(page);
      return;
    }
    const slot = this.#frame.dataPages;
    const last = this.#pieces.at(-1);
    if (last !== undefined && last.first + last.count === page) last.count++;
    else this.#pieces.push({ first: page, slot, count: 1 });
    this.#frame.addData(page);
  }

  /** Resolves with the pages that could not be read; the frame is complete when there are none. */
  async read(store: StoredPages, hashes: SentPageHashes | null): Promise<number[]> {
    const unreadable: number[] = [];
    for (const piece of this.#pieces) unreadable.push(...(await this.#readPiece(store, piece)));
    if (unreadable.length === 0 && hashes !== null) this.#tell(store, hashes);
    return unreadable;
  }

  /** Header place and payload, once every page was read. */
  finish(): Buffer {
    return this.#frame.finish();
  }

  async #readPiece(store: StoredPages, { first, count, slot }: Piece): Promise<number[]> {
    try {
      await store.read(this.block, first, count, this.#frame.span(slot, count));
      return [];
    } catch (error) {
      this.readError = error;
      if (count === 1) return [first];
    }
    // One by one tells which of them it is.
    const unreadable: number[] = [];
    for (let page = first; page < first + count; page++) {
      const piece = { first: page, count: 1, slot: slot + page - first };
      unreadable.push(...(await this.#readPiece(store, piece)));
    }
    return unreadable;
  }

  #tell(store: StoredPages, hashes: SentPageHashes): void {
    let slot = 0;
    for (const page of this.pages) {
      if (store.isZero(this.block, page)) hashes.zeroPage(this.block, page);
      else hashes.page(this.block, page, this.#frame.span(slot++, 1));
    }
  }
}

/** Frames that are not in use. */
export class FramePool {
  readonly #free: StoredFrame[] = [];

  take(block: number): StoredFrame {
    const frame = this.#free.pop() ?? new StoredFrame();
    frame.reset(block);
    return frame;
  }

  release(frame: StoredFrame): void {
    if (this.#free.length < FREE_MAX) this.#free.push(frame);
  }
}
