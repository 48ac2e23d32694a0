import { afterEach, beforeEach, expect, test } from "vitest";
import { FakeAgent } from "../fake-agent.ts";
import { checkAgent } from "./check-agent.ts";

let agent: FakeAgent;

beforeEach(async () => {
  agent = await FakeAgent.open();
  agent.answer("GET /readyz", { status: 200, body: { status: "ready", reasons: [] } });
  agent.answer("GET /v1/guests", { status: 200, body: { guests: [] } });
});

afterEach(async () => {
  await agent.close();
});

test("an agent that is ready passes", async () => {
  expect(await checkAgent({ url: agent.url, token: null })).toMatchObject({
    status: "pass",
    detail: "ready; 0 guests",
  });
});

test("an agent that is not ready fails with its own words", async () => {
  const reasons = [{ code: "qemu-not-usable", detail: "There is no QEMU." }];
  agent.answer("GET /readyz", { status: 503, body: { status: "not-ready", reasons } });
  const detail = "answers, but is not ready: There is no QEMU. (qemu-not-usable)";
  expect(await checkAgent({ url: agent.url, token: null })).toMatchObject({
    status: "fail",
    detail,
  });
});

test("an agent that refuses the token fails, and it is said how one is set", async () => {
  agent.refuse("GET /v1/guests", 401, { code: "unauthorized" });
  const finding = await checkAgent({ url: agent.url, token: null });
  expect(finding).toMatchObject({ status: "fail" });
  expect(finding.hint).toContain("VMFERRY_API_TOKEN");
});

test("an agent that does not answer fails, and so does what is no URL", async () => {
  await agent.close();
  const finding = await checkAgent({ url: agent.url, token: null });
  expect(finding).toMatchObject({ status: "fail" });
  expect(finding.detail).toContain("connection refused");
  expect(await checkAgent({ url: "host-a:7070", token: null })).toMatchObject({ status: "fail" });
});

test("an agent that may not have been started yet is missed with a warning", async () => {
  await agent.close();
  const question = { url: agent.url, token: null, mayBeAbsent: true };
  expect(await checkAgent(question)).toMatchObject({ status: "warn" });
});

test("an agent with another time is worth a warning", async () => {
  const date = new Date(Date.now() + 90_000).toUTCString();
  const body = { status: "ready", reasons: [] };
  agent.answer("GET /readyz", { status: 200, body, headers: { date } });
  const finding = await checkAgent({ url: agent.url, token: null });
  expect(finding).toMatchObject({ status: "warn" });
  expect(finding.detail).toMatch(/clock is some 1 min .* ahead of this host's/);
});
