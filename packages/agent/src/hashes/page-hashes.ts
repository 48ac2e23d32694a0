/**
 * One 64-bit hash a page: at the source of what was last sent, at the dest of what was last fed to
 * QEMU. The digest over all of them is the end-to-end proof that both mean the same memory.
 *
 * 8 bytes a page are 2 MiB a GiB of guest.
 */
import { limits } from "@vmferry/protocol";
import { HashTable } from "./hash-table.ts";
import { SeededHash } from "./seeded-hash.ts";

const { PAGE_BYTES } = limits;

export interface HashedBlock {
  readonly name: string;
  readonly lengthBytes: number;
}

export class PageHashes {
  readonly blocks: readonly HashedBlock[];
  readonly pages: number;
  readonly zeroHash: bigint;
  readonly #seeded: SeededHash;
  readonly #firstOfBlock: number[] = [];
  readonly #table: HashTable;

  /** @param seedHex 16 hex digits, the same on both sides and not known to the guest */
  constructor(blocks: readonly HashedBlock[], seedHex: string) {
    this.blocks = blocks;
    this.#seeded = new SeededHash(seedHex);
    let pages = 0;
    for (const block of blocks) {
      this.#firstOfBlock.push(pages);
      pages += block.lengthBytes / PAGE_BYTES;
    }
    this.pages = pages;
    this.#table = new HashTable(pages);
    this.zeroHash = this.hash(Buffer.alloc(PAGE_BYTES));
  }

  /** Position of a page among all pages of all blocks. */
  indexOf(block: number, page: number): number {
    return this.#firstOfBlock[block]! + page;
  }

  blockPages(block: number): number {
    return this.blocks[block]!.lengthBytes / PAGE_BYTES;
  }

  /** The block and page behind an index. */
  locate(index: number): { readonly block: number; readonly page: number } {
    let block = this.#firstOfBlock.length - 1;
    while (this.#firstOfBlock[block]! > index) block--;
    return { block, page: index - this.#firstOfBlock[block]! };
  }

  /** Never 0, which stands for "nothing sent yet". */
  hash(page: Buffer): bigint {
    return this.#seeded.hash(page);
  }

  /** What is known of the page, without its hash, which would be an object of its own. */
  stateOf(index: number): "unknown" | "zero" | "data" {
    if (this.#table.holds(index, 0n)) return "unknown";
    return this.#table.holds(index, this.zeroHash) ? "zero" : "data";
  }

  get(index: number): bigint {
    return this.#table.get(index);
  }

  set(index: number, hash: bigint): void {
    this.#table.set(index, hash);
  }

  /** Pages of a run that are now zero. */
  setZero(first: number, count: number): void {
    this.#table.fill(this.zeroHash, first, count);
  }

  /** Pages of a run that nobody has sent, or that do not count any more. */
  forget(first: number, count: number): void {
    this.#table.fill(0n, first, count);
  }

  /** Does most of the work of `digest` ahead of the stun, in turns that do not stall the loop. */
  refresh(): Promise<void> {
    return this.#table.refresh();
  }

  /** 64 hex digits over geometry and every page. */
  digest(): string {
    const geometry = this.blocks.map(
      ({ name, lengthBytes }) => `${name.length}:${name}:${lengthBytes};`,
    );
    return this.#table.digest(geometry.join(""));
  }
}
