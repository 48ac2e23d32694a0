import { expect, it } from "vitest";
import { blockJobStateOf, type QmpEvent } from "./qmp-event.ts";

const event = (name: string, data: Record<string, unknown>): QmpEvent => ({
  name,
  data,
  seconds: 1,
  microseconds: 2,
});
const job = { type: "mirror", device: "disk0-mirror", len: 1, offset: 1, speed: 0 };

it("tells when a block job is ready, and when it has ended and how", () => {
  const ready = event("BLOCK_JOB_READY", job);
  expect(blockJobStateOf(ready, "disk0-mirror")).toEqual({ kind: "ready" });
  for (const name of ["BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"]) {
    const ended = blockJobStateOf(event(name, job), "disk0-mirror");
    expect(ended).toEqual({ kind: "ended", error: null });
  }
  const failed = event("BLOCK_JOB_COMPLETED", { ...job, error: "No space left on device" });
  expect(blockJobStateOf(failed, "disk0-mirror")).toEqual({
    kind: "ended",
    error: "No space left on device",
  });
});

it("takes no other job and no other event for it", () => {
  expect(blockJobStateOf(event("BLOCK_JOB_READY", job), "disk1-mirror")).toBeNull();
  expect(blockJobStateOf(event("BLOCK_JOB_ERROR", job), "disk0-mirror")).toBeNull();
  expect(blockJobStateOf(event("STOP", {}), "disk0-mirror")).toBeNull();
});
