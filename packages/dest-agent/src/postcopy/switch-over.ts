/**
 * The end of pre-copy where some of memory comes after the hand-over: which pages QEMU does not
 * have, and device state as the package that lets the guest run without them.
 *
 *   MISSING*                   ▶  RAM_DISCARD*      most of them while the guest still runs at the source
 *   POSTCOPY(bytes)  STREAM*   ▶  PACKAGED { LISTEN, device state, PING 3, RUN }
 */
import { PageSet, type PageHashes } from "@vmferry/agent";
import { violation, type RunTable } from "@vmferry/protocol";
import { encodePackageEdges, encodeRamDiscards, type RamSection } from "@vmferry/qemu";

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

  /**
   * An opened run table of pages of `block`: what they were in pre-copy does not count any more.
   * Returns what QEMU gets.
   */
  lack(block: number, runs: RunTable): Buffer {
    const ranges: { readonly firstPage: number; readonly pageCount: number }[] = [];
    for (let run = 0; run < runs.count; run++) {
      const first = runs.first(run);
      const end = first + runs.pages(run);
      for (let page = first; page < end; page++) {
        if (!this.missing.add(block, page)) throw violation("a page is missing twice");
      }
      this.hashes.forget(this.hashes.indexOf(block, first), end - first);
      ranges.push({ firstPage: first, pageCount: end - first });
    }
    return encodeRamDiscards(this.section.blocks[block]!, ranges);
  }

  /** What QEMU gets before device state. */
  begin(deviceStateBytes: number): Buffer {
    this.#leftBytes = deviceStateBytes;
    const { head, end } = encodePackageEdges(deviceStateBytes);
    this.#packageEnd = end;
    return head;
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
