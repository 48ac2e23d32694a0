import type { PageSet } from "@vmferry/agent";

/** What is missing at the dest when the guest is handed over, and where it goes until then. */
export interface Drain {
  readonly store: {
    readonly pages: PageSet;
    put(block: number, page: number, source: Buffer, offset: number): void;
    putZero(block: number, page: number): void;
  };
  /** Takes what comes behind RAM; gives the device's sections when all of it is there. */
  readonly deviceState: (bytes: Uint8Array) => Buffer | null;
}
