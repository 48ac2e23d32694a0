import { describe, expect, it } from "vitest";
import { planDrain, type DrainInput } from "./drain.ts";

const input: DrainInput = {
  downtimeMsMax: 300,
  linkBytesPerSecond: 100_000_000,
  roundTripMs: 1,
  pendingBytes: 2_000_000,
  wireShare: 1,
  diskBytes: 0,
  diskSettleMs: 0,
  dirtyBytes: 100_000_000,
  readBytesPerSecond: 1_000_000_000,
  elapsedMs: 0,
};

describe("when to stun a guest whose pages go to a store", () => {
  it("counts what is dirty at the rate of the local socket, not of the link", () => {
    const plan = planDrain(input);
    expect(plan.predictedDowntimeMs).toBe(60 + 2 + 20 + 100);
    expect(plan.heldBytesMax).toBe(0);
  });

  it("lets the last pages take no more than a part of the budget", () => {
    expect(planDrain(input).dirtyBytesMax).toBe(3_000_000);
    expect(planDrain({ ...input, downtimeMsMax: 84 }).dirtyBytesMax).toBe(2_000_000);
  });

  it("lets them take more the longer a guest is too fast for that", () => {
    expect(planDrain({ ...input, elapsedMs: 1500 }).dirtyBytesMax).toBe(3_000_000);
    expect(planDrain({ ...input, elapsedMs: 2500 }).dirtyBytesMax).toBe(13_000_000);
    const late = { ...input, elapsedMs: 2500, downtimeMsMax: 87 };
    expect(planDrain(late).dirtyBytesMax).toBe(5_000_000);
  });

  it("waits while what is left of the disks alone would break the budget", () => {
    expect(planDrain({ ...input, diskBytes: 40_000_000 }).dirtyBytesMax).toBe(0);
    expect(planDrain({ ...input, downtimeMsMax: 0 }).dirtyBytesMax).toBe(0);
  });
});
