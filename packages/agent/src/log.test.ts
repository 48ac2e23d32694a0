import { expect, test } from "vitest";
import { AgentError } from "@vmferry/core";
import { createLogger } from "./log.ts";

function logged(fields: object, level: "debug" | "info" = "info"): string {
  const lines: string[] = [];
  const stream = { write: (line: string) => void lines.push(line) };
  createLogger({ role: "dest", level, stream }).info(fields, "message");
  return lines.join("");
}

test("a line says when, how grave, who and what", () => {
  const line = JSON.parse(logged({ wireBytes: 5 })) as Record<string, unknown>;
  expect(line).toMatchObject({ level: "info", role: "dest", msg: "message", wireBytes: 5 });
  expect(line["time"]).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
});

test.each([
  { apiToken: "canary" },
  { config: { apiToken: "canary", peerToken: "canary" } },
  { req: { headers: { authorization: "Bearer canary" } } },
  { headers: { authorization: "canary" } },
  { message: { hello: { token: "canary" } } },
  { err: new AgentError("refused", { code: "x", token: "canary" }) },
])("a secret in %j stays one", (fields) => {
  const line = logged(fields);
  expect(line).not.toContain("canary");
  expect(line).toContain("[redacted]");
});

test("a child of the logger keeps secrets as well", () => {
  const lines: string[] = [];
  const stream = { write: (line: string) => void lines.push(line) };
  const child = createLogger({ role: "source", level: "info", stream }).child({ token: "canary" });
  child.info({ peer: { peerToken: "canary" } }, "message");
  expect(lines.join("")).not.toContain("canary");
});

test("what is below the level is not written", () => {
  const lines: string[] = [];
  const stream = { write: (line: string) => void lines.push(line) };
  createLogger({ role: "dest", level: "warn", stream }).info("message");
  expect(lines).toEqual([]);
});
