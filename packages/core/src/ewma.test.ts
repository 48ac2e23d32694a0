import { describe, expect, test } from "vitest";
import { RateEwma } from "./ewma.ts";

describe("a rate", () => {
  test("is not known before two samples", () => {
    const rate = new RateEwma(1000);
    expect(rate.perSecond).toBeNull();
    rate.sample(500, 0);
    expect(rate.perSecond).toBeNull();
    rate.sample(500, 1000);
    expect(rate.perSecond).toBe(500);
  });

  test("does not count what came before the first sample: nobody knows how long that took", () => {
    const rate = new RateEwma(1000);
    rate.sample(1e9, 5000);
    rate.sample(10, 6000);
    expect(rate.perSecond).toBe(10);
  });

  test("is steady when the samples are, however far apart they are", () => {
    const rate = new RateEwma(300);
    let nowMs = 0;
    rate.sample(0, nowMs);
    for (const elapsedMs of [1, 1000, 7, 250, 33, 0.5, 4000]) {
      nowMs += elapsedMs;
      rate.sample(elapsedMs * 2, nowMs);
      expect(rate.perSecond).toBeCloseTo(2000, 6);
    }
  });

  test("has gone half of the way to a new value after one half-life, three quarters after two", () => {
    const rate = new RateEwma(1000);
    rate.sample(0, 0);
    rate.sample(100, 1000);
    rate.sample(0, 2000);
    expect(rate.perSecond).toBeCloseTo(50, 9);
    rate.sample(0, 3000);
    expect(rate.perSecond).toBeCloseTo(25, 9);
  });

  test("depends on the time that passes, not on the number of samples", () => {
    const few = new RateEwma(1000);
    const many = new RateEwma(1000);
    for (const rate of [few, many]) {
      rate.sample(0, 0);
      rate.sample(100, 1000);
    }
    few.sample(0, 2000);
    for (let ms = 1010; ms <= 2000; ms += 10) many.sample(0, ms);
    expect(many.perSecond).toBeCloseTo(few.perSecond!, 9);
  });

  test("counts what comes without any time passing in the next interval", () => {
    const rate = new RateEwma(1000);
    rate.sample(0, 0);
    rate.sample(30, 0);
    expect(rate.perSecond).toBeNull();
    rate.sample(70, 1000);
    expect(rate.perSecond).toBe(100);
  });
});
