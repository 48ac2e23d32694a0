import { expect, test } from "vitest";
import { completedMigration, eventOf, sampleMigration } from "../fake-agent.ts";
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
