import { expect, test } from "vitest";
import { AskedUnits } from "./asked-units.ts";

test("units are taken in the order in which they were asked for, the urgent ones apart", () => {
  const asked = new AskedUnits();
  asked.add({ disk: 0, first: 10, count: 3 }, false);
  asked.add({ disk: 1, first: 5, count: 2 }, true);
  expect(asked.units).toBe(5);
  expect(asked.takeUrgent(1)).toEqual({ disk: 1, first: 5, count: 1 });
  expect(asked.takeUrgent(9)).toEqual({ disk: 1, first: 6, count: 1 });
  expect(asked.takeUrgent(1)).toBe(null);
  expect(asked.takeBackground(2)).toEqual({ disk: 0, first: 10, count: 2 });
  expect(asked.hasBackground).toBe(true);
  expect(asked.takeBackground(2)).toEqual({ disk: 0, first: 12, count: 1 });
  expect([asked.units, asked.hasBackground]).toEqual([0, false]);
});

test("what becomes urgent is answered once, and what lies around it stays", () => {
  const asked = new AskedUnits();
  asked.add({ disk: 0, first: 0, count: 10 }, false);
  asked.add({ disk: 1, first: 0, count: 10 }, false);
  asked.add({ disk: 0, first: 4, count: 2 }, true);
  expect(asked.units).toBe(20);
  expect(asked.takeUrgent(9)).toEqual({ disk: 0, first: 4, count: 2 });
  expect(asked.takeBackground(64)).toEqual({ disk: 0, first: 0, count: 4 });
  expect(asked.takeBackground(64)).toEqual({ disk: 0, first: 6, count: 4 });
  expect(asked.takeBackground(64)).toEqual({ disk: 1, first: 0, count: 10 });
});

test("what follows is taken along only where it is next", () => {
  const asked = new AskedUnits();
  asked.add({ disk: 0, first: 7, count: 3 }, false);
  expect(asked.takeNext({ disk: 0, first: 6 }, 5)).toBe(0);
  expect(asked.takeNext({ disk: 1, first: 7 }, 5)).toBe(0);
  expect(asked.takeNext({ disk: 0, first: 7 }, 0)).toBe(0);
  expect(asked.takeNext({ disk: 0, first: 7 }, 2)).toBe(2);
  expect(asked.takeNext({ disk: 0, first: 9 }, 5)).toBe(1);
  expect(asked.units).toBe(0);
});
