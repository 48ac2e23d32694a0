import { QmpError, type QmpClient, type QmpErrorDetail } from "@vmferry/qemu";
import { expect, test } from "vitest";
import { startLoaded } from "./start-loaded.ts";

type Answer = QmpErrorDetail | { readonly status: string };

const paused = { status: "paused" };
const running = { status: "running" };
const closed: QmpErrorDetail = { code: "qmp-closed", waitingFor: "it" };
const silent: QmpErrorDetail = { code: "qmp-timeout", waitingFor: "it", timeoutMs: 1 };
const refused: QmpErrorDetail = {
  code: "qmp-command-failed",
  command: "cont",
  ...{ errorClass: "GenericError", description: "no" },
};

test.each<[string, { answers: Answer[]; kind: string; commands: number }]>([
  ["runs when it says so", { answers: [paused, running], kind: "running", commands: 2 }],
  ["that is gone is not told", { answers: [closed], kind: "not-told", commands: 1 }],
  ["that waits for a page is told", { answers: [silent, running], kind: "running", commands: 2 }],
  [
    "may refuse, and stand",
    { answers: [paused, refused, paused], kind: "stands-still", commands: 3 },
  ],
  ["may refuse, and run", { answers: [paused, refused, running], kind: "running", commands: 3 }],
  [
    "that dies of it may have run",
    { answers: [paused, closed, closed], kind: "unknown", commands: 3 },
  ],
])("a QEMU %s", async (_, { answers, kind, commands }) => {
  const said: string[] = [];
  const qmp = {
    execute: (command: string) => {
      said.push(command);
      const answer = answers[said.length - 1]!;
      if ("code" in answer) return Promise.reject(new QmpError("no", answer));
      return Promise.resolve({ ...answer, running: answer.status === "running" });
    },
  } as unknown as Pick<QmpClient, "execute">;
  expect((await startLoaded(qmp)).kind).toBe(kind);
  expect(said).toEqual(["query-status", "cont", "query-status"].slice(0, commands));
});
