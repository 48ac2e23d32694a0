/**
 * Where each page is in a file: 8 bytes a page, in pieces that are made when their first page
 * comes, so 2 MiB for each GiB of the guest's memory that the file has pages of.
 */
import { assert } from "@vmferry/core";
import { ALIGNMENT_BYTES } from "./page-file-limits.ts";

const PIECE_PAGES = 2 ** 15;
/** 0 for none; 1 for a zero page; for others place and length, in units of `ALIGNMENT_BYTES`. */
const ZERO = 1;
const LENGTH_UNITS = 2 ** 9;

export interface PageLocation {
  readonly offset: number;
  /** Without the tag. */
  readonly storedBytes: number;
}

export class PageLocations {
  readonly #pages: number;
  readonly #pieces: (Float64Array | undefined)[] = [];

  constructor(pages: number) {
    this.#pages = pages;
  }

  has(page: number): boolean {
    return this.#get(page) !== 0;
  }

  /** Null where the page is not there. */
  find(page: number): PageLocation | "zero" | null {
    const value = this.#get(page);
    if (value === 0) return null;
    if (value === ZERO) return "zero";
    const units = value % LENGTH_UNITS;
    const offset = ((value - units) / LENGTH_UNITS) * ALIGNMENT_BYTES;
    return { offset, storedBytes: units * ALIGNMENT_BYTES };
  }

  setZero(page: number): void {
    this.#set(page, ZERO);
  }

  set(page: number, { offset, storedBytes }: PageLocation): void {
    this.#set(page, (offset / ALIGNMENT_BYTES) * LENGTH_UNITS + storedBytes / ALIGNMENT_BYTES);
  }

  clear(page: number): void {
    this.#set(page, 0);
  }

  #get(page: number): number {
    assert(page >= 0 && page < this.#pages, "a page of the guest");
    return this.#pieces[Math.floor(page / PIECE_PAGES)]?.[page % PIECE_PAGES] ?? 0;
  }

  #set(page: number, value: number): void {
    const index = Math.floor(page / PIECE_PAGES);
    const pages = Math.min(PIECE_PAGES, this.#pages - index * PIECE_PAGES);
    const piece = (this.#pieces[index] ??= new Float64Array(pages));
    piece[page % PIECE_PAGES] = value;
  }
}
