/** What stands in deploy/systemd holds for the agents as they are. */
import { readFileSync } from "node:fs";
import type { MigrationRole } from "@vmferry/protocol";
import { describe, expect, test } from "vitest";
import { STOP_MS_MAX } from "../run-agent.ts";
import { parseEnvironment } from "./environment.ts";
import { loadConfig } from "./load-config.ts";
import { settingsOf, variableOf } from "./setting-table.ts";

const ROLES: readonly MigrationRole[] = ["source", "dest"];
const DIRECTORY = new URL("../../../../deploy/systemd/", import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, DIRECTORY), "utf8");

/** All values of each key, in order; of the sections, names do not clash. */
function parseUnit(text: string): ReadonlyMap<string, readonly string[]> {
  const values = new Map<string, string[]>();
  for (const [, key = "", value = ""] of text.matchAll(/^([A-Za-z]+)=(.*)$/gm)) {
    values.set(key, [...(values.get(key) ?? []), value]);
  }
  return values;
}

/** What is in force, without what an operator may take the comment mark from. */
function parseVariables(text: string): Record<string, string> {
  const pattern = /^([A-Z][A-Z_]*)=(.*)$/gm;
  return Object.fromEntries(
    [...text.matchAll(pattern)].map(([, name = "", value = ""]) => [name, value] as const),
  );
}

describe("vmferry@.service", () => {
  const unit = parseUnit(read("vmferry@.service"));

  test("ends the agent alone: guests outlive it", () => {
    expect(unit.get("KillMode")).toEqual(["process"]);
    expect(unit.get("OOMPolicy")).toEqual(["continue"]);
    expect(unit.get("TasksMax")).toEqual(["infinity"]);
  });

  test("starts an agent again for as long as it takes", () => {
    expect(unit.get("Restart")).toEqual(["always"]);
    expect(unit.get("StartLimitIntervalSec")).toEqual(["0"]);
  });

  test("waits for longer than the agent gives itself to stop", () => {
    expect(Number(unit.get("TimeoutStopSec")?.[0]) * 1000).toBeGreaterThan(STOP_MS_MAX);
  });

  test("lets Node.js and TCG make code", () => {
    expect(unit.has("MemoryDenyWriteExecute")).toBe(false);
  });

  // QEMU has no -sandbox where it may not call seccomp, and then no guest starts.
  test("lets QEMU confine itself", () => {
    expect(unit.get("SystemCallFilter")?.[0]?.split(" ")).toContain("seccomp");
  });

  test.each(ROLES)("sets only variables that a %s agent knows", (role) => {
    const assignments = (unit.get("Environment") ?? []).map((text) => text.replaceAll("%i", role));
    const names = assignments.map((text) => text.slice(0, text.indexOf("=")));
    expect(names).toEqual(["PATH", "VMFERRY_STATE_DIR"]);
    expect(parseEnvironment(role, parseVariables(assignments.join("\n"))).problems).toEqual([]);
  });

  test("has its state where systemd makes it", () => {
    expect(unit.get("Environment")).toContain(
      `VMFERRY_STATE_DIR=/var/lib/${String(unit.get("StateDirectory")?.[0])}`,
    );
  });
});

describe.each(ROLES)("%s.env", (role) => {
  const text = read(`${role}.env`);

  test("leaves the agent as it is by itself", () => {
    const inputs = { argv: [], workingDir: "/srv", readFile: () => "", version: "1" };
    expect(loadConfig(role, { ...inputs, environment: parseVariables(text) })).toEqual(
      loadConfig(role, { ...inputs, environment: {} }),
    );
  });

  test("names only settings of that agent, each once", () => {
    const known = settingsOf(role).map(({ key }) => variableOf(key));
    const names = [...text.matchAll(/^#?([A-Z][A-Z_]*)=/gm)].map(([, name]) => name);
    expect(names.length).toBeGreaterThan(4);
    for (const name of names) expect(known).toContain(name);
    expect(new Set(names).size).toBe(names.length);
  });
});
