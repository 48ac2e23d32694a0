import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RangeLock, type RangeHold } from "./range-lock.ts";

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

interface Asked {
  readonly start: number;
  readonly length: number;
}

interface Holder extends Asked {
  readonly index: number;
  readonly hold: RangeHold;
}

function overlap(a: Asked, b: Asked): boolean {
  return a.start < b.start + b.length && b.start < a.start + a.length;
}

/** Lets everything that has its turn take it. */
function settle(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

describe("ranges of a disk", () => {
  test("are held at once where nothing is in the way", () => {
    const ranges = new RangeLock();
    expect(ranges.acquire(0, 10)).not.toBeInstanceOf(Promise);
    expect(ranges.acquire(10, 5)).not.toBeInstanceOf(Promise);
    expect(ranges.acquire(9, 1)).toBeInstanceOf(Promise);
    expect(ranges.acquire(14, 100)).toBeInstanceOf(Promise);
  });

  test("wait behind one that waits, so that nobody is overtaken for ever", async () => {
    const ranges = new RangeLock();
    const small = ranges.acquire(0, 1) as RangeHold;
    const large = ranges.acquire(0, 100) as Promise<RangeHold>;
    // Free, but the large one came first.
    const late = ranges.acquire(50, 1) as Promise<RangeHold>;
    expect(late).toBeInstanceOf(Promise);
    ranges.release(small);
    const order: string[] = [];
    void late.then(() => order.push("late"));
    ranges.release(
      await large.then((hold) => {
        order.push("large");
        return hold;
      }),
    );
    await settle();
    expect(order).toEqual(["large", "late"]);
  });

  test("pass one that waits for another place", async () => {
    const ranges = new RangeLock();
    void ranges.acquire(0, 10);
    void ranges.acquire(5, 10);
    const elsewhere = ranges.acquire(20, 10);
    expect(elsewhere).not.toBeInstanceOf(Promise);
    await settle();
  });

  test(`take turns in the order of asking, each one in the end (SEED=${seed})`, async () => {
    const asked = fc.record({ start: fc.nat(30), length: fc.integer({ min: 1, max: 12 }) });
    const steps = fc.array(fc.oneof(asked, fc.nat(20)), { minLength: 1, maxLength: 60 });
    await fc.assert(fc.asyncProperty(steps, takeTurns), { seed, numRuns: 300 });
  });
});

/** A step asks for a range, or releases one of those that are held. */
async function takeTurns(steps: readonly (Asked | number)[]): Promise<void> {
  const ranges = new RangeLock();
  const requests: Asked[] = [];
  const granted: Holder[] = [];
  const held = new Map<number, Holder>();
  const take = (holder: Holder): void => {
    for (const other of held.values()) expect(overlap(holder, other)).toBe(false);
    held.set(holder.index, holder);
    granted.push(holder);
  };
  for (const step of steps) {
    if (typeof step === "number") {
      const holder = [...held.values()][step % Math.max(1, held.size)];
      if (holder === undefined) continue;
      held.delete(holder.index);
      ranges.release(holder.hold);
      await settle();
      continue;
    }
    const index = requests.push(step) - 1;
    const hold = ranges.acquire(step.start, step.length);
    if (hold instanceof Promise) {
      void hold.then((late) => {
        take({ ...step, index, hold: late });
      });
    } else take({ ...step, index, hold });
  }
  while (held.size > 0) {
    const [holder] = held.values();
    held.delete(holder!.index);
    ranges.release(holder!.hold);
    await settle();
  }
  expect(granted.map(({ index }) => index).toSorted((a, b) => a - b)).toEqual([...requests.keys()]);
  for (const [place, later] of granted.entries()) {
    for (const earlier of granted.slice(0, place)) {
      if (overlap(earlier, later)) expect(earlier.index).toBeLessThan(later.index);
    }
  }
  expect(ranges.acquire(0, 1000)).not.toBeInstanceOf(Promise);
}
