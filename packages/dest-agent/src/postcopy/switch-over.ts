/**
 * The end of pre-copy where some of memory comes after the hand-over: which pages QEMU does not
 * have, and device state as the package that lets the guest run without them.
 *
 *   MISSING*  POSTCOPY(bytes)  STREAM*        ▶  RAM_DISCARD*  PACKAGED { LISTEN, device state,
 *                                               PING 3, RUN }
 */
import { PageSet, type PageHashes } from "@vmferry/agent";
import { violation, type RunTable } from "@vmferry/protocol";
import { encodePackageEdges, encodeRamDiscards, type RamSection } from "@vmferry/qemu";

/** Ranges that are handed to QEMU in one write. */
const DISCARDS_AT_ONCE = 4096;

export class SwitchOver {
  readonly section: RamSection;
  readonly hashes: PageHashes;
  readonly missing: PageSet;
  /** Of device state, still to come; null before it was announced. */
  #leftBytes: number | null = null;
  #packageEnd: Buffer | null = null;

  constructor(section: RamSection, hashes: PageHashes) {
    this.section = section;
    this.hashes = hashes;
    this.missing = new PageSet(section.blocks);
  }

  /** Device state was announced: what is missing is known. */
  get hasBegun(): boolean {
    return this.#leftBytes !== null;
  }

  /** An opened run table of pages of `block`; what they were in pre-copy does not count any more. */
  lack(block: number, runs: RunTable): void {
    for (let run = 0; run < runs.count; run++) {
      const first = runs.first(run);
      const end = first + runs.pages(run);
      for (let page = first; page < end; page++) {
        if (!this.missing.add(block, page)) throw violation("a page is missing twice");
        this.hashes.set(this.hashes.indexOf(block, page), 0n);
      }
    }
  }

  /** What QEMU gets before device state, in pieces. */
  *begin(deviceStateBytes: number): Generator<Buffer> {
    this.#leftBytes = deviceStateBytes;
    const { head, end } = encodePackageEdges(deviceStateBytes);
    this.#packageEnd = end;
    const { blocks } = this.section;
    for (const [index, block] of blocks.entries()) {
      let ranges: { readonly firstPage: number; readonly pageCount: number }[] = [];
      const pages = this.missing.blockPages[index]!;
      let run = this.missing.next(index, 0, pages);
      while (run !== null && run.block === index) {
        ranges.push({ firstPage: run.first, pageCount: run.count });
        if (ranges.length === DISCARDS_AT_ONCE) {
          yield encodeRamDiscards(block, ranges);
          ranges = [];
        }
        run = this.missing.next(index, run.first + run.count, pages);
      }
      if (ranges.length > 0) yield encodeRamDiscards(block, ranges);
    }
    yield head;
  }

  /** Device state has come; returns what QEMU gets behind it. Throws for more than was announced. */
  take(bytes: number): Buffer | null {
    if (this.#leftBytes === null || bytes > this.#leftBytes) {
      throw violation("more device state than was announced");
    }
    this.#leftBytes -= bytes;
    if (this.#leftBytes > 0) return null;
    const end = this.#packageEnd;
    this.#packageEnd = null;
    return end;
  }
}
