/**
 * The guest as it really is, wherever it runs: what its memory holds, and which writes it was told
 * are on its disk. Every number says which beat of the guest wrote it last.
 */
export const PAGES = 4;
export const BLOCKS = 3;

export class Truth {
  readonly memory: number[] = new Array<number>(PAGES + 1).fill(0);
  /** What was acknowledged. */
  readonly disk: number[] = new Array<number>(BLOCKS).fill(0);
  /** Everything is over: the guest does nothing any more that would be looked at. */
  isAsleep = false;
  #beats = 0;

  beat(): number {
    this.#beats += 1;
    return this.#beats;
  }

  isMemory(memory: readonly number[] | null): boolean {
    return memory !== null && this.memory.every((value, page) => value === memory[page]);
  }

  /** Has it every acknowledged write? One that is under way may be there as well. */
  isOn(disk: readonly number[] | null): boolean {
    return disk !== null && this.disk.every((value, block) => value <= (disk[block] ?? -1));
  }
}

/** A function of the content, of the form that the agents expect: 64 hexadecimal digits. */
export function digestOf(content: readonly number[]): string {
  return content
    .map((value) => value.toString(16).padStart(8, "0"))
    .join("")
    .padStart(64, "0");
}
