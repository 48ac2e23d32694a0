import type { PageSet } from "@vmferry/agent";

/**
 * Whom pages go to. A drain that begins in the first pass is `shared` until that is over: the link
 * may take some of it, the store has the rest. In the second pass, `counting`, the store has all,
 * and shows which pages are cold; these go out, `cold`; then the dest is told what it lacks,
 * `telling`. Every other drain is `telling` at once.
 */
export type DrainStage = "shared" | "counting" | "cold" | "telling";

/**
 * Where the link keeps up with the guest, what is left of the first pass is better sent than missed.
 * A guest that outruns it is drained at once, and what of its memory is quiet goes over the link all
 * the same. Now is for whoever wants the guest to run at the dest as soon as can be.
 */
export type DrainStart = "second-pass" | "outrun" | "now";

export interface DrainLink {
  readonly hasRoom: boolean;
  /** Pages of the first pass go there as well, while it has room. */
  readonly isShared: boolean;
}

/** What is missing at the dest when the guest is handed over, and where it goes until then. */
export interface Drain {
  readonly store: DrainStore;
  readonly start: DrainStart;
  /** Of a guest that outruns it; null where the store does not share. */
  readonly link: DrainLink | null;
  /** Takes what comes behind RAM; gives the device's sections when all of it is there. */
  readonly deviceState: (bytes: Uint8Array) => Buffer | null;
}

export interface DrainStore {
  readonly pages: PageSet;
  put(block: number, page: number, source: Buffer, offset: number): void;
  putZero(block: number, page: number): void;
  isZero(block: number, page: number): boolean;
  /** Resolves when what was put until now can be read. */
  written(): Promise<void>;
  /** A page that was written, where it is at hand; else false. */
  readWritten(block: number, page: number, into: Buffer): boolean;
}
