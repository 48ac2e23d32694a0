import { expect, test } from "vitest";
import { RecentUnits } from "./recent-units.ts";

test("a unit is recent until two intervals have ended without it", () => {
  const units = new RecentUnits(10);
  units.add(3);
  expect(units.has(3)).toBe(true);
  units.endInterval();
  expect(units.has(3)).toBe(true);
  units.endInterval();
  expect(units.has(3)).toBe(false);
  expect(units.has(4)).toBe(false);
});

test("a unit that is touched again stays recent", () => {
  const units = new RecentUnits(10);
  for (let interval = 0; interval < 5; interval++) {
    units.add(7);
    units.endInterval();
    expect(units.has(7)).toBe(true);
  }
});
