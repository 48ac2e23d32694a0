import { expect, test } from "vitest";
import { completedMigration, eventOf, sampleDisk, sampleMigration } from "../fake-agent.ts";
import { followView } from "./follow-view.ts";

test("what can be done about a doubt is told once for each doubt", () => {
  const written: string[] = [];
  const output = { write: (text: string) => written.push(text) };
  const context = { stdout: output, stderr: output, environment: {} };
  const view = followView(context, false);
  const error = { code: "in-doubt", detail: "Wait, or see to it that host-b is off." };
  const doubtful = sampleMigration({ phase: "in-doubt", error });
  for (const migration of [doubtful, doubtful, sampleMigration(), doubtful]) {
    view.onEvent(eventOf(migration));
  }
  view.onEvent(eventOf(completedMigration()));
  const told = written.filter((text) => text === `in doubt: ${error.detail}\n`);
  expect(told).toHaveLength(2);
});

test("when the source's host may be lost is told once, and before what of it is needed still", () => {
  const written: string[] = [];
  const output = { write: (text: string) => written.push(text) };
  const view = followView({ stdout: output, stderr: output, environment: {} }, false);
  for (const [fallback, remainingBytes] of [
    ["growing", 8192],
    ["complete", 8192],
    ["complete", 4096],
    ["complete", 0],
    ["complete", 0],
  ] as const) {
    const disks = [sampleDisk({ remainingBytes })];
    view.onEvent(eventOf(sampleMigration({ phase: "post-copy", fallback, disks })));
  }
  expect(written.filter((text) => text.startsWith("All of"))).toEqual([
    "All of the memory that web1 still lacks is on the share; its disks still need the source's host.\n",
    "All of the memory that web1 still lacks is on the share: the source's host may be lost now.\n",
  ]);
});
