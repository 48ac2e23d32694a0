/** Bytes of a disk as units, and back. */
import type { UnitRun } from "@vmferry/protocol";

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

export class UnitGeometry {
  readonly sizeBytes: number;
  readonly unitBytes: number;

  constructor({ sizeBytes, unitBytes }: Pick<UnitGeometry, "sizeBytes" | "unitBytes">) {
    this.sizeBytes = sizeBytes;
    this.unitBytes = unitBytes;
  }

  /** Every unit of which a byte lies in the range. */
  touched({ offset, length }: ByteRange): UnitRun {
    const first = Math.floor(offset / this.unitBytes);
    return { first, count: Math.floor((offset + length - 1) / this.unitBytes) - first + 1 };
  }

  bytesOf({ first, count }: UnitRun): ByteRange {
    const offset = first * this.unitBytes;
    return { offset, length: Math.min(count * this.unitBytes, this.sizeBytes - offset) };
  }

  covers(range: ByteRange, unit: number): boolean {
    const { offset, length } = this.bytesOf({ first: unit, count: 1 });
    return offset >= range.offset && offset + length <= range.offset + range.length;
  }

  /** The range without units at its edges that it does not cover; null where nothing is left. */
  withoutEdges(range: ByteRange, isLeftOut: (unit: number) => boolean): ByteRange | null {
    const { first, count } = this.touched(range);
    const last = first + count - 1;
    let start = range.offset;
    let end = range.offset + range.length;
    if (isLeftOut(first) && !this.covers(range, first)) start = (first + 1) * this.unitBytes;
    if (isLeftOut(last) && !this.covers(range, last)) end = Math.min(end, last * this.unitBytes);
    return end > start ? { offset: start, length: end - start } : null;
  }
}

export function unitsIn({ first, count }: UnitRun): number[] {
  return Array.from({ length: count }, (_, index) => first + index);
}

/** Runs of units that follow each other. */
export function runsOf(units: readonly number[]): UnitRun[] {
  const runs: { readonly first: number; count: number }[] = [];
  for (const unit of units.toSorted((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last !== undefined && last.first + last.count === unit) last.count++;
    else runs.push({ first: unit, count: 1 });
  }
  return runs;
}
