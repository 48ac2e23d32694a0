import { Readable } from "node:stream";
import { describe, expect, it } from "vitest";
import { longestSilenceMs } from "../../bench/silence.ts";
import { faultFiguresOf, type FaultFigures } from "../../bench/traced-qemu.ts";

/** As QEMU 10.0 writes it. */
function figuresOf(...lines: readonly string[]): Promise<FaultFigures> {
  return faultFiguresOf(Readable.from(lines));
}

const fault = (us: number, address: string): string =>
  `77@1764187200.${String(us).padStart(6, "0")}:postcopy_ram_fault_thread_request ` +
  `Request for HVA=0x${address} rb=pc.ram offset=0x1000 pid=78`;
const placed = (us: number, address: string, zero = ""): string =>
  `77@1764187200.${String(us).padStart(6, "0")}:postcopy_place_page${zero} host=0x${address}`;

describe("faults in QEMU's trace", () => {
  it("take from the fault to the page, whichever byte of it was touched", async () => {
    const figures = await figuresOf(
      fault(1000, "7f0000001abc"),
      placed(1500, "7f0000005000"),
      fault(1600, "7f0000002000"),
      placed(3000, "7f0000001000"),
      placed(5600, "7f0000002000", "_zero"),
    );
    expect(figures).toEqual({ count: 2, p50Ms: 2, p99Ms: 4, maxMs: 4 });
  });

  it("do not count where the page was there already, and once where two vCPUs wait", async () => {
    const figures = await figuresOf(
      placed(100, "7f0000001000"),
      fault(200, "7f0000001000"),
      fault(300, "7f0000002000"),
      fault(800, "7f0000002000"),
      placed(1300, "7f0000002000"),
    );
    expect(figures).toEqual({ count: 1, p50Ms: 1, p99Ms: 1, maxMs: 1 });
  });

  it("may be none", async () => {
    const none = { count: 0, p50Ms: null, p99Ms: null, maxMs: null };
    expect(await figuresOf("qemu: something else")).toEqual(none);
  });
});

describe("the longest silence", () => {
  const sign = (number: number, seenAtMs: number) => ({
    ...{ text: `#${number}`, seenAtMs, complete: true },
  });

  it("is looked for between the signs of both consoles, in the time of the move", () => {
    const lines = [sign(1, 0), sign(2, 500), sign(3, 510), sign(4, 640), sign(5, 650)];
    expect(longestSilenceMs(lines, { startedAtMs: 505, endedAtMs: 660 })).toBe(130);
  });

  it("counts where it begins before the move, or ends behind it", () => {
    const lines = [sign(1, 0), sign(2, 500), sign(3, 510), sign(4, 900)];
    expect(longestSilenceMs(lines, { startedAtMs: 100, endedAtMs: 505 })).toBe(500);
    expect(longestSilenceMs(lines, { startedAtMs: 505, endedAtMs: 600 })).toBe(390);
  });

  it("is not ended by what is no sign of life", () => {
    const other = { text: "VF ready", seenAtMs: 50, complete: true };
    const torn = { text: "#2", seenAtMs: 60, complete: false };
    const lines = [sign(1, 0), other, torn, sign(2, 100)];
    expect(longestSilenceMs(lines, { startedAtMs: 10, endedAtMs: 100 })).toBe(100);
  });
});
