import { describe, expect, it } from "vitest";
import { CompressionChoice, type Compression } from "./compression-choice.ts";

const MIB = 1024 * 1024;

/** Drives the choice over `totalMs` on a link where each way moves so many bytes a millisecond. */
function drive(
  choice: CompressionChoice,
  bytesPerMs: Record<Compression, number>,
  options: { readonly fromMs: number; readonly totalMs: number; readonly waits: boolean },
): Record<Compression, number> {
  const spentMs = { raw: 0, zstd: 0 };
  for (let ms = 0; ms < options.totalMs; ms += 10) {
    spentMs[choice.current] += 10;
    if (options.waits) choice.waited();
    choice.sent(bytesPerMs[choice.current] * 10, options.fromMs + ms);
  }
  return spentMs;
}

describe("the choice between raw and compressed", () => {
  it("begins raw", () => {
    expect(new CompressionChoice(1e9).current).toBe("raw");
  });

  it("spends nearly all of its time on zstd where that moves more of the guest", () => {
    const choice = new CompressionChoice(1e9);
    const spent = drive(
      choice,
      { raw: 12_500, zstd: 24_000 },
      { fromMs: 0, totalMs: 60_000, waits: true },
    );
    expect(spent.zstd).toBeGreaterThan(55_000);
  });

  it("spends nearly all of its time on raw where compressing is the slower way", () => {
    const choice = new CompressionChoice(1e9);
    const spent = drive(
      choice,
      { raw: 900_000, zstd: 300_000 },
      { fromMs: 0, totalMs: 60_000, waits: true },
    );
    expect(spent.raw).toBeGreaterThan(55_000);
  });

  it("changes its mind when the link changes", () => {
    const choice = new CompressionChoice(1e9);
    const options = { totalMs: 40_000, waits: true };
    drive(choice, { raw: 900_000, zstd: 300_000 }, { ...options, fromMs: 0 });
    const spent = drive(choice, { raw: 12_500, zstd: 24_000 }, { ...options, fromMs: 40_000 });
    expect(choice.current).toBe("zstd");
    expect(spent.zstd).toBeGreaterThan(5_000);
  });

  it("stays raw while the link never kept anybody waiting", () => {
    const choice = new CompressionChoice(1e9);
    const spent = drive(
      choice,
      { raw: 50_000, zstd: 50_000 },
      { fromMs: 0, totalMs: 20_000, waits: false },
    );
    expect(spent.zstd).toBe(0);
  });

  it("stays with zstd while the link keeps nobody waiting any more", () => {
    const choice = new CompressionChoice(1e9);
    const rates = { raw: 12_500, zstd: 24_000 };
    drive(choice, rates, { fromMs: 0, totalMs: 1500, waits: true });
    expect(choice.current).toBe("zstd");
    const spent = drive(choice, rates, { fromMs: 1500, totalMs: 20_000, waits: false });
    expect(spent.raw).toBe(0);
  });

  it("is not led astray by one slow moment", () => {
    const choice = new CompressionChoice(1e9);
    drive(choice, { raw: 12_500, zstd: 30_000 }, { fromMs: 0, totalMs: 1500, waits: true });
    drive(choice, { raw: 12_500, zstd: 8_000 }, { fromMs: 1500, totalMs: 260, waits: true });
    expect(choice.current).toBe("zstd");
  });

  it("does not even try on a link that is faster than the host could compress", () => {
    const choice = new CompressionChoice(300e6);
    const spent = drive(
      choice,
      { raw: 450_000, zstd: 250_000 },
      { fromMs: 0, totalMs: 20_000, waits: true },
    );
    expect(spent.zstd).toBe(0);
  });

  it("ends a trial early that is evidently the slower way, whichever that is", () => {
    const choice = new CompressionChoice(1e9);
    const waits = true;
    const options = { fromMs: 0, totalMs: 1000, waits };
    expect(drive(choice, { raw: 300_000, zstd: 100_000 }, options).zstd).toBeLessThan(100);
    const slow = new CompressionChoice(1e9);
    const spent = drive(slow, { raw: 50_000, zstd: 100_000 }, { ...options, totalMs: 3000 });
    // The first one, by which raw is known, and the early end of the second.
    expect(spent.raw).toBeLessThan(400);
  });

  it("gives a trial that may turn out as good all of its time", () => {
    const choice = new CompressionChoice(1e9);
    const options = { fromMs: 0, totalMs: 1000, waits: true };
    expect(drive(choice, { raw: 100_000, zstd: 90_000 }, options).zstd).toBeGreaterThan(240);
  });

  it("judges nothing by a trickle", () => {
    const choice = new CompressionChoice(1e9);
    choice.waited();
    choice.sent(MIB / 4, 0);
    choice.sent(MIB / 4, 5000);
    expect(choice.current).toBe("raw");
  });
});
